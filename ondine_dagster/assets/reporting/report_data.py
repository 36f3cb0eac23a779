"""What the report says, as numbers: read from the lake in a few scans, and from the ledger.

Owns the queries. The lake tells where rows ended and what the answers say, the ledger what was
paid: a file only knows what the run that wrote it has paid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState
from ondine_dagster.ledger.totals import Spent, Unsettled, spent, unsettled
from ondine_dagster.ledger.usage import (
    KeyUsage,
    Usage,
    latencies,
    usage_by_key,
    usage_by_partition,
)
from ondine_dagster.privacy.scrubbing import Scrub
from ondine_dagster.storage.lake import Lake, identifier

if TYPE_CHECKING:
    import duckdb
    from sqlalchemy.engine import Connection

    from ondine_dagster.assets.verdicts.check_results import CheckResult

WITHOUT_FILES = (PartitionState.MISSING, PartitionState.CHANGED, PartitionState.OPEN)
# values of a field are counted where there are at most so many; more are free text
_MOST_VALUES = 20_000
_FEW_VALUES = 20
_ROWS_PER_TEXT = 4  # a text that comes back less often than this is free text


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """What an output column holds. `values` is None for free text and for measured numbers.

    `distinct` is exact where the values are counted, else near. `spread` of a number is its least,
    middle, mean and most.
    """

    name: str
    type: str
    rows: int
    filled: int
    distinct: int
    values: Counter[str] | None
    spread: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class RejectedCode:
    """Rows that were rejected for one reason, with the message of one of them."""

    error_class: str
    code: str
    rows: int
    example: str


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the report shows. Money in picodollars, latency in milliseconds.

    `used` is by partition of the current snapshot, `used_elsewhere` of partitions that are gone.
    """

    dataset: str
    description: str | None
    source: str
    snapshot_at: datetime
    made_at: datetime
    status: DatasetStatus
    money: Spent
    unsettled: Unsettled
    used: Mapping[str, Usage]
    used_elsewhere: Usage
    keys: Sequence[KeyUsage]
    latencies: Counter[int]
    reused: int
    fields: Sequence[FieldFigures]
    codes: Sequence[RejectedCode]
    checks: Sequence[CheckResult]

    @property
    def reused_share(self) -> float:
        """Return the share of the rows with files whose answers were paid for before."""
        rows = sum(one.rows for one in self.status.partitions if one.state not in WITHOUT_FILES)
        return self.reused / rows if rows else 0.0


def collect(
    pipeline: Pipeline,
    lake: Lake,
    status: DatasetStatus,
    connection: Connection,
    checks: Sequence[CheckResult] = (),
) -> ReportData:
    """Read everything that the report on `status` shows; `connection` is one to the ledger.

    Raises OndineError where no snapshot was taken yet.
    """
    name, snapshot = pipeline.name, pipeline.snapshot(lake)
    present = [one.partition for one in status.partitions if one.state not in WITHOUT_FILES]
    used = usage_by_partition(connection, name)
    current = {one.partition: used.get(one.partition, Usage()) for one in status.partitions}
    return ReportData(
        dataset=name,
        description=pipeline.dataset.description,
        source=snapshot.source_path,
        snapshot_at=snapshot.taken_at,
        made_at=datetime.now(UTC),
        status=status,
        money=spent(connection, name),
        unsettled=unsettled(connection, name),
        used=current,
        used_elsewhere=_sum([usage for key, usage in used.items() if key not in current]),
        keys=usage_by_key(connection, name),
        latencies=latencies(connection, name),
        reused=_reused(lake, name, present),
        fields=_fields(pipeline, lake, present),
        codes=_codes(pipeline, lake, present),
        checks=checks,
    )


def _sum(parts: Sequence[Usage]) -> Usage:
    return Usage(
        sum(one.requests for one in parts),
        sum(one.tokens for one in parts),
        sum(one.paid for one in parts),
    )


def _reused(lake: Lake, dataset: str, present: Sequence[str]) -> int:
    if not present:
        return 0
    rows = lake.scan(dataset, RESPONSES, present, ["cost_source"])
    return int(_one(rows.aggregate("count(*) FILTER (cost_source = 'reused')"))[0])


def _codes(pipeline: Pipeline, lake: Lake, present: Sequence[str]) -> list[RejectedCode]:
    rows: Counter[tuple[str, str]] = Counter()
    messages: dict[tuple[str, str], str] = {}
    columns = ["_outcome", "_error_class", "_error_code", "_error_message"]
    for partition in present:  # not in SQL, which does not open sealed messages
        cells = lake.read(pipeline.name, REJECTED, partition, columns, shown=True).columns
        for outcome, *of, message in zip(*(one.to_pylist() for one in cells), strict=True):
            if outcome == "error":
                code = (of[0] or "", of[1] or "")
                rows[code] += 1
                if message:
                    messages[code] = min(messages.get(code, message), message)
    ordered = sorted(rows, key=lambda code: (-rows[code], code[1], code[0]))
    return [
        RejectedCode(*code, rows[code], pipeline.scrub(messages.get(code, ""))) for code in ordered
    ]


def _fields(pipeline: Pipeline, lake: Lake, present: Sequence[str]) -> list[FieldFigures]:
    """Return the figures of the output columns: two scans, whatever their number."""
    output = pipeline.dataset.output
    types = output.column_types()
    listed = {name for name, field in output.fields_by_column().items() if field.enum}
    names = list(types)
    if not present:
        return []
    rows = lake.scan(pipeline.name, RESULTS, present, [*names, "_outcome"]).filter(
        "_outcome <> 'skipped'"
    )
    measures = [_measured(*one) for one in types.items()]
    first = list(_one(rows.aggregate(", ".join(["count(*)", *measures]))))
    count, measured = first.pop(0), {name: [first.pop(0) for _ in range(6)] for name in names}
    counted = [
        name for name in names if _is_counted(types[name], name in listed, *measured[name][:2])
    ]
    values = _values(rows, counted)
    for name in values:
        if types[name] not in ("integer", "number", "boolean"):
            values[name] = _shown(values[name], pipeline.scrub)
    return [_figures(name, types[name], count, measured[name], values.get(name)) for name in names]


def _measured(name: str, kind: str) -> str:
    column = identifier(name)
    nested = kind in ("object", "array")  # no cast to a number, not even one that is tried
    number = "CAST(NULL AS DOUBLE)" if nested else f"TRY_CAST({column} AS DOUBLE)"
    mean = f"sum({number} / 1e6) / count({number}) * 1e6"  # the sum of huge ones has no double
    spread = f"min({number}), median({number}), {mean}, max({number})"
    return f"count({column}), approx_count_distinct({column}), {spread}"


def _is_counted(kind: str, listed: bool, filled: int, distinct: int) -> bool:
    if listed or kind == "boolean" or distinct <= _FEW_VALUES:
        return True
    return kind == "string" and distinct <= min(_MOST_VALUES, filled / _ROWS_PER_TEXT)


def _values(rows: duckdb.DuckDBPyRelation, names: Sequence[str]) -> dict[str, Counter[str]]:
    if not names:
        return {}
    counts = [f"histogram(CAST({identifier(name)} AS VARCHAR))" for name in names]
    found = _one(rows.aggregate(", ".join(counts)))
    return {name: Counter(values or {}) for name, values in zip(names, found, strict=True)}


def _shown(values: Counter[str], scrub: Scrub) -> Counter[str]:
    """Return values as they may be shown, with their rows."""
    found: Counter[str] = Counter()
    for value, rows in values.items():
        found[scrub(value)] += rows
    return found


def _figures(
    name: str, kind: str, rows: int, measured: Sequence[Any], values: Counter[str] | None
) -> FieldFigures:
    filled, distinct, *ends = measured
    least, middle, mean, most = ends
    numeric = kind in ("integer", "number") and filled > 0
    return FieldFigures(
        name=name,
        type=kind,
        rows=rows,
        filled=filled,
        distinct=distinct if values is None else len(values),
        values=values,
        spread=(least, middle, mean, most) if numeric else None,
    )


def _one(rows: duckdb.DuckDBPyRelation) -> tuple[Any, ...]:
    (found,) = rows.fetchall()  # an aggregate over all rows
    return found
