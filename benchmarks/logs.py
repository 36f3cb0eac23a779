"""Whether a log that is slow, or takes nothing, slows the asking: the same rows with four logs."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.quick_server import quick_server
from benchmarks.setup import Bench
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.ledger import close_ledger, open_ledger

_SLOW_SECONDS = 0.5
# seconds that a line of JSON takes on standard error, and a line in Dagster's own record of a run
_SINKS: dict[str, tuple[float, float]] = {
    "takes lines at once": (0, 0),
    f"takes {_SLOW_SECONDS} s for each line": (_SLOW_SECONDS, 0),
    "takes nothing": (float("inf"), 0),
    f"as the first, Dagster's record takes {_SLOW_SECONDS} s for each line": (0, _SLOW_SECONDS),
}


def main(rows: int = 1_000, concurrency: int = 50, latency_ms: int = 500, rounds: int = 1) -> None:
    """All at level debug, as JSON: three lines for each row. Keeps the best of the rounds."""
    best = dict.fromkeys(_SINKS, 0.0)
    whole = dict.fromkeys(_SINKS, float("inf"))
    with quick_server(latency_ms) as server:
        for _ in range(rounds):
            for name in _SINKS:
                asking, wall = _apart(name, rows, server.base_url, concurrency)
                best[name] = max(best[name], rows / asking)
                whole[name] = min(whole[name], wall)
    first = next(iter(best.values()))
    ideal = 1000 * concurrency / latency_ms
    print(f"\n## Logs of {rows:,} rows, at most {ideal:,.0f} rows/s\n")
    print("| the log | rows/s while asking | of the first | the step took |")
    print("|---|---|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} | {rate / first:.1%} | {whole[name]:.1f} s |")


def _apart(name: str, *work: Any) -> tuple[float, float]:
    """Measure in a process of its own, which ends although a thread of it hangs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measure, name, *work).result()


def _measure(name: str, rows: int, base_url: str, concurrency: int) -> tuple[float, float]:
    """Return the seconds from the first request to the last settlement, and of the whole step."""
    os.environ |= {"ONDINE_LOG_FORMAT": "json", "ONDINE_LOG_LEVEL": "debug"}
    line_seconds, record_seconds = _SINKS[name]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        bench = Bench(Path(folder), rows, base_url, concurrency)
        bench.materialize("snapshot")
        bench.materialize("raw_rows", "prompts")
        logging.disable(logging.NOTSET)
        bench.slow_records(record_seconds)
        stderr, sys.stderr = sys.stderr, _Sink(nowhere, line_seconds)
        try:
            wall = bench.materialize(*TRIO).wall
        finally:
            sys.stderr = stderr
        attempts, path = schema.attempts.c, Path(folder) / "ledger.sqlite"
        span = sa.select(sa.func.max(attempts.t_end) - sa.func.min(attempts.t_open))
        with open_ledger(path).database.read() as connection:
            asking = connection.execute(span).scalar_one() / 1000
        close_ledger(path)
    return asking, wall


class _Sink(io.TextIOBase):
    """A standard error whose reader takes its time for lines of JSON."""

    def __init__(self, file: io.TextIOBase | Any, seconds: float) -> None:
        self._file = file
        self._seconds = seconds

    def write(self, text: str) -> int:
        if text.startswith("{") and self._seconds:
            time.sleep(min(self._seconds, 3600))
        return int(self._file.write(text))


if __name__ == "__main__":
    main()
