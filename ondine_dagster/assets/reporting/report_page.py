"""The report as one HTML file that needs nothing else: no script, nothing from the network.

Owns its tables and words. Whatever rows and providers wrote is escaped by the template.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ondine_dagster.assets.reporting.charts import Chart, label_bars
from ondine_dagster.assets.reporting.report_data import WITHOUT_FILES, FieldFigures, ReportData
from ondine_dagster.assets.shared.status import PartitionState
from ondine_dagster.llm.prices import money
from ondine_dagster.storage.atomic import write_atomically
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.partitioning import UNASSIGNED

_SHOWN_PARTITIONS, _SHOWN_LABELS, _SHOWN = 100, 5, 50
_TEMPLATE = "report.html.jinja"


@dataclass(frozen=True, slots=True)
class _Table:
    id: str
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()
    remark: str = ""


def report_file(lake: Lake, dataset: str) -> Path:
    """Return where the page of a dataset is, or would be."""
    return lake.path(dataset, "report", None).with_suffix(".html")


def write_page(lake: Lake, data: ReportData, charts: Sequence[Chart]) -> Path:
    """Write the page beside the table of the asset `report`, whose folder is there already."""
    return write_atomically(report_file(lake, data.dataset), page(data, charts).encode())


def page(data: ReportData, charts: Sequence[Chart]) -> str:
    """Return the page."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = files("ondine_dagster.assets.reporting").joinpath(_TEMPLATE).read_text("utf-8")
    return environment.from_string(template).render(
        data=data,
        about=_about(data),
        charts=[(chart.title, data_uri(chart)) for chart in charts],
        tiles=_tiles(data),
        warnings=_warnings(data),
        tables=[
            _checks(data),
            _money(data),
            _fields(data),
            _codes(data),
            _keys(data),
            _partitions(data),
        ],
    )


def data_uri(chart: Chart) -> str:
    """Return the picture as an address that holds it."""
    return f"data:image/png;base64,{b64encode(chart.png).decode()}"


def _about(data: ReportData) -> str:
    made, taken = (f"{one:%Y-%m-%d %H:%M} UTC" for one in (data.made_at, data.snapshot_at))
    return f"Report of {made} on the snapshot of {taken}: {data.source}"


def _tiles(data: ReportData) -> list[tuple[str, str]]:
    status = data.status
    tiles = [
        ("rows", f"{status.rows:,}"),
        ("results", f"{status.results:,}"),
        *([("skipped", f"{status.skipped:,}")] if status.skipped else []),
        ("rejected", f"{status.rejected - _waiting_in_files(data):,}"),
        ("waiting", f"{status.waiting:,}"),
        ("paid", money(data.money.settled)),
        ("requests", f"{data.money.requests:,}"),
        ("tokens", f"{data.money.tokens:,}"),
    ]
    if status.results or status.rejected:
        tiles.append(("of the rows paid before", f"{100 * data.reused_share:.3g} %"))
    return tiles


def _waiting_in_files(data: ReportData) -> int:
    """Return the rows that wait and stand in files, where they count as rejected."""
    return sum(one.waiting for one in data.status.partitions if one.state not in WITHOUT_FILES)


def _warnings(data: ReportData) -> list[str]:
    states = Counter(one.state for one in data.status.partitions)
    texts = {
        PartitionState.MISSING: "have not run yet",
        PartitionState.CHANGED: "have changed since they ran",
        PartitionState.FAILED: "failed: rows wait for another run, or too many are rejected",
        PartitionState.OPEN: "wait for the end of their time window",
        PartitionState.STALE: "answer another question than the declaration asks now",
        PartitionState.UNPARSED: "are read again for nothing: the declaration has changed",
    }
    found = [
        f"{states[state]:,} of {len(data.status.partitions):,} partitions {text}."
        for state, text in texts.items()
        if states[state]
    ]
    if failed := [one.name for one in data.checks if not one.passed]:
        found.append(f"Checks that did not pass: {', '.join(failed)}.")
    if count := data.status.unassigned:
        fit = "row of the source fits" if count == 1 else "rows of the source fit"
        found.append(f"{count:,} {fit} no partition: rejected_rows/{UNASSIGNED} says why.")
    return found


def _checks(data: ReportData) -> _Table:
    """Return the checks, those first that did not pass."""
    rows = [
        (one.asset, one.name, "passed" if one.passed else one.severity, one.text)
        for one in sorted(data.checks, key=lambda one: one.passed)
    ]
    headers = ("asset", "check", "verdict", "what it says")
    return _Table("checks", "Asset checks", headers, rows, remark="As Dagster has them by now.")


def _money(data: ReportData) -> _Table:
    spent, open_ = data.money, data.unsettled
    here = sum(one.paid for one in data.used.values())
    rows = [
        ("paid", f"{spent.requests - open_.open_requests - open_.unknown_requests:,}",
         money(spent.settled)),
        ("of it for partitions that are gone", f"{data.used_elsewhere.requests:,}",
         money(data.used_elsewhere.paid)),
        ("in flight, at most", f"{open_.open_requests:,}", money(open_.open_money)),
        ("of unknown outcome, at most", f"{open_.unknown_requests:,}",
         money(open_.unknown_money)),
    ]  # fmt: skip
    remark = f"Since the ledger began. The partitions of now: {money(here)}."
    return _Table("money", "Money by state", ("", "requests", "USD"), rows, {1, 2}, remark)


def _fields(data: ReportData) -> _Table:
    rows = [
        (
            one.name,
            one.type,
            f"{100 * one.filled / one.rows:.4g} %" if one.rows else "",
            f"{min(one.distinct, one.filled):,}",
            _common(one),
        )
        for one in data.fields
    ]
    headers = ("column", "type", "filled", "different values", "what they are")
    return _Table("fields", "Output columns", headers, rows, {2, 3})


def _common(field: FieldFigures) -> str:
    parts = []
    if field.spread is not None:
        least, middle, mean, most = field.spread
        parts.append(f"{least:,.6g} to {most:,.6g}, median {middle:,.6g}, mean {mean:,.6g}")
    if field.values is None and field.spread is None:
        parts.append("free text")
    elif field.values and field.spread is None:
        bars = label_bars(field)
        shown = [f"{_short(name)}: {count:,}" for name, count in bars[:_SHOWN_LABELS]]
        parts.append(", ".join([*shown, *(["…"] if len(bars) > _SHOWN_LABELS else [])]))
    return "; ".join(parts)


def _codes(data: ReportData) -> _Table:
    rows = [
        (one.code, one.error_class, f"{one.rows:,}", _short(one.example, 300))
        for one in data.codes[:_SHOWN]
    ]
    headers = ("code", "class", "rows", "for example")
    return _Table("rejected", "Rejected rows", headers, rows, {2})


def _keys(data: ReportData) -> _Table:
    rows = [
        (
            one.model,
            one.key or "no key",
            f"{one.usage.requests:,}",
            f"{one.usage.tokens:,}",
            money(one.usage.paid),
        )
        for one in data.keys[:_SHOWN]
    ]
    headers = ("model", "key (fingerprint)", "requests", "tokens", "paid")
    return _Table("keys", "Models and keys", headers, rows, {2, 3, 4})


def _partitions(data: ReportData) -> _Table:
    """Return the partitions that need something first; of many only those."""
    ordered = sorted(data.status.partitions, key=lambda one: one.state is PartitionState.DONE)
    rows = [
        (
            one.partition,
            str(one.state),
            f"{one.rows:,}",
            f"{one.results:,}",
            f"{one.skipped:,}",
            f"{one.rejected:,}",
            f"{one.waiting:,}",
            f"{data.used[one.partition].tokens:,}",
            money(data.used[one.partition].paid),
        )
        for one in ordered[:_SHOWN_PARTITIONS]
    ]
    left = len(ordered) - len(rows)
    remark = f'{left:,} more: ondine-dagster sql "from {data.dataset}.report"' if left > 0 else ""
    headers = (
        "partition", "state", "rows", "results", "skipped", "rejected", "waiting", "tokens", "paid",
    )  # fmt: skip
    right = {2, 3, 4, 5, 6, 7, 8}
    return _Table("partitions", "Partitions", headers, rows, right, remark)


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
