"""Numbers for Prometheus, read from the ledger: what was asked, what it cost, what waits.

Owns the names of the metrics, with their units, and their text format. No row key is ever a label.
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.llm.prices import usd

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_t = schema.attempts.c
_Labels = Mapping[str, str]
Value = int | float | Decimal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `kind` is counter or gauge. `name` ends with its unit."""

    name: str
    kind: str
    help: str


@dataclass(slots=True)
class Page:
    """Samples, grouped by metric as the format wants them."""

    _samples: dict[Metric, list[str]] = field(default_factory=dict)

    def add(self, metric: Metric, value: Value, **labels: str | None) -> None:
        """Add a sample; labels that are None are left out."""
        shown = ",".join(f'{name}="{_escaped(one)}"' for name, one in labels.items() if one)
        line = f"{metric.name}{{{shown}}} {_number(value)}"
        self._samples.setdefault(metric, []).append(line)

    def text(self) -> str:
        """Return the page."""
        return "".join(
            f"# HELP {one.name} {one.help}\n# TYPE {one.name} {one.kind}\n"
            + "".join(f"{line}\n" for line in lines)
            for one, lines in self._samples.items()
        )


REQUESTS = Metric(
    "ondine_requests_total",
    "counter",
    "Requests by how they ended: settled (paid), released (free), unknown, or still open.",
)
COST = Metric("ondine_cost_usd_total", "counter", "Money paid, in US dollars.")
RESERVED = Metric(
    "ondine_reserved_usd",
    "gauge",
    "What requests that are open, or whose outcome nobody knows, may cost at most.",
)
TOKENS = Metric(
    "ondine_tokens_total", "counter", "Tokens that were billed; cached ones are prompt ones too."
)
SECONDS = Metric(
    "ondine_request_seconds_total",
    "counter",
    "Time from reservation to settlement of requests that were paid, added up.",
)
TRACES = Metric("ondine_traces_waiting", "gauge", "Requests that wait to be sent as traces.")

ROWS = Metric("ondine_last_run_rows", "gauge", "Rows of the last run by how they ended.")
LAST_REQUESTS = Metric("ondine_last_run_requests", "gauge", "Requests of the last run.")
RETRIES = Metric("ondine_last_run_retries", "gauge", "Repeated requests of the last run.")
LAST_COST = Metric("ondine_last_run_cost_usd", "gauge", "Money that the last run paid.")
LAST_SECONDS = Metric("ondine_last_run_seconds", "gauge", "How long the last run asked.")
PARTITIONS = Metric(
    "ondine_last_run_partitions", "gauge", "Partitions of the last run that are finished or failed."
)
SUCCESS = Metric("ondine_last_run_success", "gauge", "1 if the last run ended well, else 0.")
ENDED = Metric(
    "ondine_last_run_timestamp_seconds",
    "gauge",
    "When the last run ended: seconds since 1970.",
)
ALL_COST = Metric("ondine_dataset_cost_usd_total", "counter", "Money that all runs have paid.")
ALL_REQUESTS = Metric(
    "ondine_dataset_requests_total",
    "counter",
    "Requests of all runs without those that were free.",
)


def read_ledger(connection: Connection, page: Page) -> None:
    """Add what the ledger knows of all datasets. Reads every request once."""
    tokens = {
        "prompt": _t.prompt_tokens,
        "completion": _t.completion_tokens,
        "cached": _t.cached_tokens,
        "reasoning": _t.reasoning_tokens,
    }
    statement = sa.select(
        _t.dataset,
        _t.provider,
        _t.model_requested,
        _t.state,
        _t.code,
        sa.func.count(),
        sa.func.sum(_t.cost),
        sa.func.sum(_t.reserved),
        sa.func.sum(_t.t_end - _t.t_open),
        *(sa.func.sum(one) for one in tokens.values()),
    ).group_by(_t.dataset, _t.provider, _t.model_requested, _t.state, _t.code)
    paid: dict[tuple[str, str, str], list[int]] = {}
    held: dict[tuple[str, str], int] = {}
    for (
        dataset,
        provider,
        model,
        state,
        code,
        count,
        cost,
        reserved,
        ms,
        *used,
    ) in connection.execute(statement):
        page.add(
            REQUESTS,
            count,
            dataset=dataset,
            provider=provider,
            model=model,
            state=state,
            code=code or "ok" * (state == "settled"),
        )
        if state in ("open", "unknown"):
            held[dataset, state] = held.get((dataset, state), 0) + int(reserved)
        if state == "settled":
            sums = paid.setdefault((dataset, provider, model), [0] * (2 + len(tokens)))
            for place, one in enumerate((cost, ms, *used)):
                sums[place] += int(one or 0)
    for (dataset, provider, model), (cost, ms, *used) in paid.items():
        labels = {"dataset": dataset, "provider": provider, "model": model}
        page.add(COST, usd(cost), **labels)
        page.add(SECONDS, ms / 1000, **labels)
        for kind, many in zip(tokens, used, strict=True):
            page.add(TOKENS, many, **labels, kind=kind)
    for (dataset, state), amount in held.items():
        page.add(RESERVED, usd(amount), dataset=dataset, state=state)
    waiting = sa.select(sa.func.count()).select_from(schema.outbox)
    # spelled out, so that SQLite uses the partial index
    page.add(TRACES, connection.execute(waiting.where(sa.text("exported = 0"))).scalar_one())


def merged(texts: Iterable[str]) -> str:
    """Return several pages as one: each metric once, with the samples of all."""
    lines: dict[str, dict[str, None]] = {}
    for line in (one for text in texts for one in text.splitlines() if one):
        name = line.split()[2] if line.startswith("# ") else re.split("[{ ]", line, maxsplit=1)[0]
        lines.setdefault(name, {})[line] = None
    return "".join(f"{line}\n" for group in lines.values() for line in group)


def _number(value: Value) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
