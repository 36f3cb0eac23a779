"""The results of another dataset as a source: its rows as people see them, under their own keys.

Owns which rows those are: the rows of the current snapshot upstream that stand in `results`, in
input order, with source and output columns. Skipped rows are among them, rejected ones are not.
Everything is read from the lake, so that the declaration upstream is not needed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import ERROR_COLUMNS, LINEAGE_COLUMNS
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import as_schema
from ondine_dagster.storage.snapshot_file import SNAPSHOT, Snapshot, read_columns, read_pointer
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

ROW_KEY = "_row_key"
_RESULTS = "results"
_CONTENT, _QUESTION = "ondine.content_hash", "ondine.question_version"


@dataclass(frozen=True, slots=True)
class Gaps:
    """What a dataset upstream has not brought (yet): rows, and partitions of earlier rows."""

    upstream: str
    rejected: int
    without_outcome: int
    changed: int
    several_questions: bool

    @property
    def sentence(self) -> str | None:
        """Return what is missing and what to do; None where upstream is complete."""
        found, do = [], _run_first(self.upstream)
        if self.without_outcome:
            found.append(f"{plural(self.without_outcome, 'row')} without an outcome yet")
        if self.changed:
            found.append(f"{plural(self.changed, 'partition')} whose rows have changed since")
        if self.several_questions:
            found.append("results of several questions (prompt, model or schema were changed)")
            do = f"Run all of it first: ondine-dagster run {self.upstream} --all"
        if self.rejected and not found:
            do = f"Ask again for them: ondine-dagster retry {self.upstream}"
        if self.rejected:
            found.append(f"{plural(self.rejected, 'rejected row')}, which are left out here")
        return f"The source {self.upstream} has {'; '.join(found)}. {do}" if found else None


def read_results(lake: Lake, name: str, reserved: Collection[str] = ()) -> pa.Table:
    """Return source and output columns of the results of a dataset, and `_row_key`.

    Columns that are `reserved` here, as those that say how samples agree, are left out.

    Raises:
        OndineError: it has no results yet, or its partitions have different types.
    """
    import numpy as np
    import pyarrow as pa

    snapshot = _snapshot(lake, name)
    whole = _schema(lake, name, snapshot)
    left_out = set(reserved) - {ROW_KEY}
    schema = pa.schema([one for one in whole if one.name not in left_out])
    named = _positions(snapshot)
    tables, positions = [], []
    for key in _with_results(lake, snapshot):
        table = lake.read(name, _RESULTS, key)
        here = [named.get((key, row)) for row in table[ROW_KEY].to_pylist()]
        kept = [place for place, position in enumerate(here) if position is not None]
        positions += [position for position in here if position is not None]
        tables.append(as_schema(table.take(pa.array(kept, pa.int64())), schema))
    together = pa.concat_tables(tables).combine_chunks()
    return together.take(pa.array(np.argsort(np.asarray(positions, dtype=np.int64))))


def result_columns(lake: Lake, name: str, reserved: Collection[str] = ()) -> list[str]:
    """Return the columns that `read_results` brings, but for `reserved` ones; raises as it does."""
    left_out = {ROW_KEY, *reserved}
    return [one for one in _schema(lake, name, _snapshot(lake, name)).names if one not in left_out]


def result_files(lake: Lake, name: str) -> list[Path]:
    """Return the files that change when the results do; raises as `read_results` does."""
    snapshot = _snapshot(lake, name)
    results = (lake.path(name, _RESULTS, key) for key in _with_results(lake, snapshot))
    return [lake.path(name, SNAPSHOT, snapshot.version), *results]


def gaps(lake: Lake, name: str) -> Gaps:
    """Return what is missing upstream; raises OndineError where it has no snapshot."""
    snapshot = _snapshot(lake, name)
    found = {key: lake.metadata(name, _RESULTS, key) for key in _with_results(lake, snapshot)}
    there = [one for one in snapshot.partitions if one.key in found]
    rows = sum(one.rows for one in there)
    changed = sum(found[one.key][_CONTENT] != one.content_hash for one in there)
    waiting = sum(int(one["ondine.unanswered"]) for one in found.values())
    results = sum(int(one["ondine.results"]) for one in found.values())
    assigned = snapshot.rows - snapshot.unassigned_rows
    return Gaps(
        name,
        rejected=max(0, rows - results - waiting) + snapshot.unassigned_rows,
        without_outcome=assigned - rows + waiting,
        changed=changed,
        several_questions=len({one[_QUESTION] for one in found.values()}) > 1,
    )


def _run_first(name: str) -> str:
    return f"Run it first, or this dataset with --upstream: ondine-dagster run {name}"


def _snapshot(lake: Lake, name: str) -> Snapshot:
    pointer = read_pointer(lake, name)
    if pointer is None:
        raise OndineError(
            f"source.dataset: {name} has no results in {lake.root} yet. {_run_first(name)}"
        )
    return pointer.snapshot


def _with_results(lake: Lake, snapshot: Snapshot) -> list[str]:
    keys = (one.key for one in snapshot.partitions)
    return [key for key in keys if lake.exists(snapshot.dataset, _RESULTS, key)]


def _schema(lake: Lake, name: str, snapshot: Snapshot) -> pa.Schema:
    import pyarrow as pa

    schemas = [lake.schema(name, _RESULTS, key) for key in _with_results(lake, snapshot)]
    if not schemas:
        raise OndineError(
            f"source.dataset: no partition of {name} has results in {lake.root} yet. "
            f"{_run_first(name)}"
        )
    try:
        union = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise OndineError(
            f"source.dataset: the partitions of {name}/results do not have the same types "
            f"({error}). Bring them up to date first: ondine-dagster run {name}"
        ) from None
    added = {*LINEAGE_COLUMNS, *ERROR_COLUMNS} - {ROW_KEY}
    return pa.schema([one for one in union if one.name not in added]).remove_metadata()


def _positions(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """Return the position of each row by partition and key: a row may have left and come back."""
    columns = read_columns(snapshot, ["_partition", ROW_KEY, "_position"])
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return {(partition, key): position for partition, key, position in rows}
