"""`verify`: asks some answered rows again and compares; what is there stays, whatever comes.

Owns the comparison by output columns, and the file `verified` that holds what was found. The
answers are paid, within the budgets, and never become current: no table changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.audit.verify_sample import Sampled, Wanted
from ondine_dagster.assets.shared.partition_counts import VERIFIED
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import PartitionFeed, RowOutcome
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.engine.engine import Engine

_MAX_DRIFT = "ondine.max_drift"  # a note of the file: what the call allowed
_PURGED = "what was compared is purged"


class Same(StrEnum):
    """What became of a row that was asked again."""

    MATCH = "match"
    MISMATCH = "mismatch"
    INDETERMINATE = "indeterminate"  # no answer came


@dataclass(frozen=True, slots=True)
class Verified:
    """A row that was asked again.

    `changed` are the columns that differ: before and now; `why` there is nothing to compare.
    `model` has answered now, as its server calls it.
    """

    partition: str
    row_key: str
    same: Same
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    why: str | None = None
    model: str | None = None


def ask_again(pipeline: Pipeline, engine: Engine, chosen: Sequence[Sampled]) -> list[Verified]:
    """Ask the chosen rows, which have to be in the order of their partitions; compare."""
    apart = {one.question.answer_key: one for one in reversed(chosen)}  # equal ones are asked once
    first = [one for one in chosen if apart[one.question.answer_key] is one]
    feeds = [
        PartitionFeed(partition, [[one.question for one in rows]])
        for partition, rows in groupby(first, key=lambda one: one.partition)
    ]
    ended: dict[bytes, RowOutcome] = {}
    with closing(engine.run(feeds)) as chunks:
        for chunk in chunks:
            for key, outcome in zip(chunk.keys, chunk.outcomes, strict=True):
                if key is not None:
                    ended[key] = outcome
    outcomes = (ended[one.question.answer_key] for one in chosen)
    return [
        replace(_compared(pipeline, one, now), model=now.model_served)
        for one, now in zip(chosen, outcomes, strict=True)
    ]


def _compared(pipeline: Pipeline, one: Sampled, now: RowOutcome) -> Verified:
    row = one.partition, one.question.row_key
    if now.text is None:
        return Verified(*row, Same.INDETERMINATE, why=now.message or "no answer came")
    # placeholders are compared as they are, or as values of their kind where only those fit
    for read in (pipeline.reader.read, pipeline.judge):
        before, after = read(one.answer), read(now.text)
        if isinstance(before, dict) and isinstance(after, dict):
            break
    else:
        why = now.message or (None if isinstance(after, dict) else after.message)
        return Verified(*row, Same.MISMATCH, why=f"an answer of no use: {why}")
    changed = {
        name: (was, after.get(name)) for name, was in before.items() if was != after.get(name)
    }
    return Verified(*row, Same.MISMATCH if changed else Same.MATCH, changed)


def write_verified(
    pipeline: Pipeline, lake: Lake, found: Sequence[Verified], run_scope: str, wanted: Wanted
) -> None:
    """Write what was found to the file `verified`; what the same call has found is kept in it."""
    import json

    import pyarrow as pa

    names = ("partition", "_row_key", "verdict", "column", "before", "now", "why")
    more = ("model_served", "verified_at", "call")
    schema = pa.schema([(name, pa.string()) for name in (*names, *more)])
    at = datetime.now(UTC).isoformat(timespec="seconds")

    def text(value: Any) -> str:
        return pipeline.scrub(json.dumps(value, ensure_ascii=False, default=str))

    nothing: list[tuple[str | None, str | None, str | None]] = [(None, None, None)]
    rows = [
        (
            *(one.partition, one.row_key, one.same.value, column, before, after, why),
            *(one.model, at, run_scope),
        )
        for one in found
        for why in [one.why and pipeline.scrub(one.why)]
        for column, before, after in (
            [(name, text(was), text(now)) for name, (was, now) in one.changed.items()] or nothing
        )
    ]
    made = [dict(zip(schema.names, row, strict=True)) for row in rows]
    tables = [pa.Table.from_pylist(made, schema)]
    before = _present(lake, pipeline.name)
    if before is not None:
        kept = [scope == run_scope for scope in before.column("call").to_pylist()]
        tables.insert(0, before.filter(pa.array(kept, pa.bool_())))
    notes = {} if wanted.max_drift is None else {_MAX_DRIFT: str(wanted.max_drift)}
    # a file of an older version has fewer columns; its notes are those of the call before
    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata()
    lake.write(pipeline.name, VERIFIED, None, table, notes)


def _present(lake: Lake, dataset: str) -> pa.Table | None:
    """Return the file `verified`, None where there is none."""
    if not lake.exists(dataset, VERIFIED, None):
        return None
    return lake.read(dataset, VERIFIED, None, shown=True)


@dataclass(frozen=True, slots=True)
class Drift:
    """What the last call of verify has found.

    `examples` are rows that differ, and how; `unclear` those that cannot be compared, and why.
    `allowed` is the share of rows (0 to 1) that may differ, None where the call did not say: then
    it is what is declared. `models` are the rows by the model that answered.
    """

    rows: Mapping[str, int]
    examples: tuple[tuple[str, str], ...]
    unclear: tuple[tuple[str, str], ...]
    at: str
    allowed: float | None = None
    models: Mapping[str, int] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        """Return how many rows could be compared."""
        return self.rows.get(Same.MATCH, 0) + self.rows.get(Same.MISMATCH, 0)

    @property
    def percent(self) -> float:
        """Return how many of the rows that could be compared differ, in per cent."""
        return 100 * self.rows.get(Same.MISMATCH, 0) / self.compared if self.compared else 0.0

    def passed(self, declared: float) -> bool:
        """Return whether no more rows differ than may. Where none could be compared: no."""
        return self.compared > 0 and self.percent <= self._allowed(declared)

    def text(self, declared: float) -> str:
        """Return it as a sentence."""
        match, differ, unclear = counts = [self.rows.get(one, 0) for one in Same]
        found = f"drift {self.percent:.3g} %, {self._allowed(declared):.3g} % allowed"
        return (
            f"Asked {plural(sum(counts), 'row')} again ({self.at}): {match:,} as before, "
            f"{differ:,} differ, {unclear:,} cannot be compared; "
            f"{found if self.compared else 'nothing is known'}."
        )

    def _allowed(self, declared: float) -> float:
        return 100 * (declared if self.allowed is None else self.allowed)


def _example(row: Mapping[str, Any]) -> str:
    if row["column"] is None:
        return f"{row['_row_key']}: {row['why'] or _PURGED}"
    if row["before"] is None:
        return f"{row['_row_key']}, {row['column']}: {_PURGED}"
    return f"{row['_row_key']}, {row['column']}: was {row['before']}, now {row['now']}"


def read_drift(lake: Lake, dataset: str) -> Drift | None:
    """Return what the last call of verify has found; None where there was none."""
    present = _present(lake, dataset)
    if present is None:
        return None
    rows = present.to_pylist()
    allowed = lake.metadata(dataset, VERIFIED, None).get(_MAX_DRIFT)
    verdicts = {(row["partition"], row["_row_key"]): row["verdict"] for row in rows}
    models = {(row["partition"], row["_row_key"]): row.get("model_served") for row in rows}
    counts = {one: sum(verdict == one for verdict in verdicts.values()) for one in Same}
    examples = tuple(
        (row["partition"], _example(row)) for row in rows if row["verdict"] == Same.MISMATCH
    )
    unclear = tuple(
        (row["partition"], f"{row['_row_key']}: {row['why'] or _PURGED}")
        for row in rows
        if row["verdict"] == Same.INDETERMINATE
    )
    at = max((row["verified_at"] for row in rows), default="")
    return Drift(
        {str(one): rows for one, rows in counts.items()},
        examples,
        unclear,
        at.replace("T", " ").replace("+00:00", " UTC"),
        None if allowed is None else float(allowed),
        Counter(one for one in models.values() if one is not None),
    )
