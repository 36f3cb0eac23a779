"""Numbers for Prometheus, read from the ledger: what was asked, what it cost, what waits.

Owns the names of the metrics, with their units, and their text format. No row key is ever a label.
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.engine.latencies import BOUNDS_MS, Latencies
from ondine_dagster.ledger import schema
from ondine_dagster.llm.prices import usd

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_t = schema.attempts.c
_MODEL = ("dataset", "provider", "model")
Value = int | float | Decimal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `kind` is counter, gauge or histogram. `name` ends with its unit."""

    name: str
    kind: str
    help: str


@dataclass(slots=True)
class Page:
    """Samples, grouped by metric as the format wants them."""

    _samples: dict[Metric, list[str]] = field(default_factory=dict)

    def add(self, metric: Metric, value: Value, **labels: str | None) -> None:
        """Add a sample; labels that are None are left out."""
        self._add(metric, metric.name, value, labels)

    def histogram(self, metric: Metric, latencies: Latencies, **labels: str) -> None:
        """Add a histogram of seconds."""
        counts = latencies.cumulative()
        bounds = [*(f"{ms / 1000:g}" for ms in BOUNDS_MS), "+Inf"]
        for bound, count in zip(bounds, counts, strict=True):
            self._add(metric, f"{metric.name}_bucket", count, {**labels, "le": bound})
        self._add(metric, f"{metric.name}_sum", latencies.sum_ms / 1000, labels)
        self._add(metric, f"{metric.name}_count", counts[-1], labels)

    def _add(
        self, metric: Metric, name: str, value: Value, labels: Mapping[str, str | None]
    ) -> None:
        shown = ",".join(f'{label}="{_escaped(one)}"' for label, one in labels.items() if one)
        line = f"{name}{f'{{{shown}}}' * bool(shown)} {_number(value)}"
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
LATENCY = Metric(
    "ondine_request_duration_seconds",
    "histogram",
    "Time from reservation to settlement of requests that were paid.",
)
TRACES = Metric("ondine_traces_waiting", "gauge", "Requests that wait to be sent as traces.")

ROWS = Metric("ondine_last_run_rows", "gauge", "Rows of the last run by how they ended.")
LAST_REQUESTS = Metric("ondine_last_run_requests", "gauge", "Requests of the last run.")
RETRIES = Metric("ondine_last_run_retries", "gauge", "Repeated requests of the last run.")
LAST_COST = Metric("ondine_last_run_cost_usd", "gauge", "Money that the last run paid.")
LAST_SECONDS = Metric("ondine_last_run_seconds", "gauge", "How long the last run asked.")
LAST_LATENCY = Metric(
    "ondine_last_run_request_duration_seconds",
    "histogram",
    "Time from request to reply of requests of the last run that were paid.",
)
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
    took = _t.t_end - _t.t_open
    place = sa.case(
        (_t.state != "settled", None),
        *((took <= bound, place) for place, bound in enumerate(BOUNDS_MS)),
        else_=len(BOUNDS_MS),
    ).label("place")
    group = (_t.dataset, _t.provider, _t.model_requested, _t.state, _t.code)
    used = {"ms": took, "reserved": _t.reserved, "cost": _t.cost, **tokens}
    sums = (sa.func.coalesce(sa.func.sum(one), 0).label(name) for name, one in used.items())
    statement = sa.select(*group, place, sa.func.count().label("count"), *sums)
    ended: Counter[tuple[str, ...]] = Counter()
    held: Counter[tuple[str, str]] = Counter()
    paid: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    latencies: defaultdict[tuple[str, ...], Latencies] = defaultdict(Latencies)
    for row in connection.execute(statement.group_by(*group, place)).mappings():
        model = (row["dataset"], row["provider"], row["model_requested"])
        state, count = row["state"], row["count"]
        ended[*model, state, row["code"] or "ok" * (state == "settled")] += count
        if state in ("open", "unknown"):
            held[row["dataset"], state] += int(row["reserved"])
        if state == "settled":
            latencies[model].add_many(row["place"], count, int(row["ms"]))
            paid[model].update({name: int(row[name]) for name in ("cost", *tokens)})
    for names, count in ended.items():
        page.add(REQUESTS, count, **dict(zip((*_MODEL, "state", "code"), names, strict=True)))
    for names, total in paid.items():
        labels = dict(zip(_MODEL, names, strict=True))
        page.add(COST, usd(total["cost"]), **labels)
        page.histogram(LATENCY, latencies[names], **labels)
        for kind in tokens:
            page.add(TOKENS, total[kind], **labels, kind=kind)
    for (dataset, state), amount in held.items():
        page.add(RESERVED, usd(amount), dataset=dataset, state=state)
    waiting = sa.select(sa.func.count()).select_from(schema.outbox)
    # spelled out, so that SQLite uses the partial index
    page.add(TRACES, connection.execute(waiting.where(sa.text("exported = 0"))).scalar_one())


def merged(texts: Iterable[str]) -> str:
    """Return several pages as one: each metric once, with the samples of all."""
    lines: dict[str, dict[str, None]] = {}
    group: dict[str, None] = {}
    for line in (one for text in texts for one in text.split("\n") if one):
        if line.startswith("# HELP "):
            group = lines.setdefault(line.split()[2], {})
        group[line] = None
    return "".join(f"{line}\n" for group in lines.values() for line in group)


def _number(value: Value) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
