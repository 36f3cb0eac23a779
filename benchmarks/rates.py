"""Declared rates against a server that enforces them: how much of the allowance is used, and 429s.

The server's limits are token buckets that hold a second of the rate, start full and refill without
steps; a request takes one request, its prompt tokens when it is admitted and its completion tokens
when it is answered (`ondine_dagster/simulator/limits.py`).
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import Work, engines
from benchmarks.provider import Provider, Reading, Stretch
from ondine_dagster.ledger.rates import Rates
from ondine_dagster.simulator import ServerLimits

_LATENCY_MS = 50
_CONCURRENCY = 32
_WARM_UP_SECONDS = 5


@dataclass(frozen=True)
class _Case:
    """A limit, as it is declared and as the server enforces it."""

    unit: str
    per_minute: int
    rates: Rates
    limits: ServerLimits

    def used(self, stretch: Stretch) -> float:
        """Return the share of the allowance that was used."""
        units = stretch.answered if self.unit == "requests" else stretch.tokens
        return units / (self.per_minute / 60 * stretch.seconds)


def main(
    seconds: int = 30,
    processes: int = 4,
    requests_per_minute: int = 600,
    tokens_per_minute: int = 60_000,
) -> None:
    """One process and `processes`; both limits at the same time, each at a server of its own."""
    cases = [
        _Case(
            "requests",
            requests_per_minute,
            Rates(requests_per_minute=requests_per_minute),
            ServerLimits(requests_per_minute=requests_per_minute),
        ),
        _Case(
            "tokens",
            tokens_per_minute,
            Rates(tokens_per_minute=tokens_per_minute),
            ServerLimits(tokens_per_minute=tokens_per_minute),
        ),
    ]
    print(f"\n## Declared rates, {seconds} s of wall clock, server with token buckets of 1 s\n")
    print(
        f"| limit per minute | processes | requests | used | used after {_WARM_UP_SECONDS} s "
        f"| 429s | 429s after {_WARM_UP_SECONDS} s |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in (1, processes):
        for case, read in zip(cases, _measure(cases, count, seconds), strict=True):
            _row(case, count, read)


def _measure(cases: list[_Case], processes: int, seconds: float) -> list[list[Reading]]:
    """Return for each case its bill when all begin, after the warm-up and at the end."""
    with ExitStack() as stack:
        providers, ready = [], []
        for case in cases:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            provider = stack.enter_context(Provider(_LATENCY_MS, case.limits))
            work = Work(folder, provider.base_url, _CONCURRENCY, rates=case.rates, sentences=8)
            ready.append(stack.enter_context(engines(work, processes)))
            providers.append(provider)
        for each in ready:
            each.go()
        read = [_read(providers)]
        time.sleep(_WARM_UP_SECONDS)
        read.append(_read(providers))
        time.sleep(max(1, seconds - _WARM_UP_SECONDS))
        read.append(_read(providers))
        for each in ready:
            each.stop()
            each.done()
    return [list(of_case) for of_case in zip(*read, strict=True)]


def _read(providers: list[Provider]) -> list[Reading]:
    return [provider.read() for provider in providers]


def _row(case: _Case, processes: int, read: list[Reading]) -> None:
    start, warm, end = read
    whole, later = end.since(start), end.since(warm)
    print(
        f"| {case.per_minute:,} {case.unit} | {processes} | {whole.requests:,} | "
        f"{case.used(whole):.1%} | {case.used(later):.1%} | "
        f"{whole.limited / whole.requests:.1%} | {later.limited / later.requests:.1%} |",
        flush=True,
    )
