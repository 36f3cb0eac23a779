"""Exports: the results of a dataset as a file or a table, in the order of the current snapshot.

Owns which rows go out: those of the current snapshot that have a result in the file of their
partition; so removed rows are gone and no row comes twice, even one that left and came back.
Rows are gathered with Arrow and not with SQL, which would change types on the way.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import ERROR_COLUMNS, LINEAGE_COLUMNS
from ondine_dagster.spec.columns import QUESTION_VERSION_COLUMN, TRACE_COLUMN
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage.export_duckdb import DuckDBTable
from ondine_dagster.storage.export_formats import open_format
from ondine_dagster.storage.export_table import Changes, TableSink
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import as_schema, read_metadata
from ondine_dagster.storage.snapshot import Snapshot, current_snapshot
from ondine_dagster.storage.snapshot_file import read_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_ROW_KEY, _ANSWER_KEY = "_row_key", "_answer_key"
_VERSION_NOTE = "ondine.question_version"
_CHUNK_ROWS = 20_000
# The trace of each answer, by its key; both in hex.
TraceIds = Callable[[Sequence[str | None]], Sequence[str | None]]
# Partitions held in memory: neighbours in the input mostly come from the same few.
_OPEN_PARTITIONS = 8


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a database, which may hold rows already: `mode` says what becomes of them.

    `file` is the file of DuckDB, absolute; None for a server. Rows are known by the columns `key`,
    by `_row_key` where there are none.
    """

    url: DatabaseUrl
    name: str
    mode: Mode
    file: Path | None = None
    key: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"table {self.name} of {self.file or self.url.shown}"


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote, and which rows of the current snapshot it did not hold.

    `rejected` rows are in `rejected_rows`; `missing` rows have no outcome yet. `changes` are those
    of a table. `skipped` of the `rows` were not asked: their output columns are empty.
    """

    to: Path | Table
    rows: int
    rejected: int
    missing: int
    changes: Changes | None = None
    skipped: int = 0


def export(
    lake: Lake,
    dataset: str,
    to: Path | Table,
    *,
    lineage: bool = False,
    traces: TraceIds | None = None,
) -> ExportResult:
    """Write source and output columns of all results to a file, whose ending says the format.

    A file appears whole or not at all, and one that exists is replaced; a table changes in one
    transaction. With `lineage` the columns that say where an answer came from and what it cost are
    added; `traces` finds the trace of each answer by its key, where there are traces.

    Raises:
        OndineError: unknown ending, no such folder, the source itself, no results yet, or what a
            database says against it.
    """
    snapshot = current_snapshot(lake, dataset)
    file = to if isinstance(to, Path) else to.file
    if file is not None:
        _refuse_ours(lake, snapshot, file, is_replaced=isinstance(to, Path))
    keys = [] if snapshot is None else _with_files(lake, snapshot, "results")
    if snapshot is None or not keys:
        raise OndineError(
            f"Dataset {dataset} has no results to export in {lake.root}. "
            f"Make them first: ondine-dagster run {dataset}"
        )
    schema = _schema(lake, snapshot, keys, _added(to, lineage, traces))
    gathered = _Gathered(lake, dataset, keys, schema, traces)
    order = _order(lake, snapshot, "results", keys)
    rejected = len(_order(lake, snapshot, "rejected_rows")) + snapshot.unassigned_rows
    with open_format(to, schema) if isinstance(to, Path) else _open_table(to, schema) as sink:
        for start in range(0, len(order), _CHUNK_ROWS):
            sink.write(gathered.rows(order[start : start + _CHUNK_ROWS]))
        changes = sink.commit()
    missing = max(snapshot.rows - len(order) - rejected, 0)
    return ExportResult(to, len(order), rejected, missing, changes, _skipped(lake, snapshot, keys))


def _added(to: Path | Table, lineage: bool, traces: TraceIds | None) -> Sequence[str]:
    """Return the columns beside those of source and output, `_row_key` where rows need it."""
    if lineage:
        found = (*LINEAGE_COLUMNS, QUESTION_VERSION_COLUMN)
        return (*found, TRACE_COLUMN) if traces is not None else found
    by_key = isinstance(to, Table) and to.mode != "replace" and not to.key
    return (_ROW_KEY,) if by_key else ()


def _open_table(to: Table, schema: pa.Schema) -> TableSink:
    key = to.key or (_ROW_KEY,)
    if to.file is not None:
        return DuckDBTable(to.file, to.name, schema, to.mode, key)
    from ondine_dagster.storage.export_postgres import PostgresTable

    return PostgresTable(to.url, to.name, schema, to.mode, key)


def _refuse_ours(lake: Lake, snapshot: Snapshot | None, to: Path, *, is_replaced: bool) -> None:
    """An export replaces its target: never the source, never a file of the lake."""
    target = to.resolve()
    source = "" if snapshot is None else snapshot.source_path
    if is_replaced:
        source = re.sub(r", (table .*|query)$", "", source)  # of a database: its file
    if snapshot is not None and _is_source(Path(source), target):
        raise OndineError(f"{to} is the source of {snapshot.dataset}. Export to another file.")
    if target.is_relative_to(lake.root.resolve()):
        raise OndineError(f"{to} lies in the lake. Export to a file outside of {lake.root}.")


def _is_source(source: Path, target: Path) -> bool:
    """Return whether `target` is the source, or fits its pattern: then it would become a part."""
    folder = Path(re.split(r"[*?%]", str(source))[0]).parent
    pattern = re.sub("%.", "*", str(folder.resolve() / source.relative_to(folder)))
    in_folder = source.is_dir() and target.parent == source.resolve()
    return target == source.resolve() or in_folder or fnmatch(str(target), pattern)


def _with_files(lake: Lake, snapshot: Snapshot, asset: str) -> list[str]:
    keys = (partition.key for partition in snapshot.partitions)
    return [key for key in keys if lake.exists(snapshot.dataset, asset, key)]


def _schema(lake: Lake, snapshot: Snapshot, keys: Sequence[str], more: Sequence[str]) -> pa.Schema:
    """Return the columns of all files together: source, output, and of lineage those wanted."""
    import pyarrow as pa

    schemas = [lake.schema(snapshot.dataset, "results", key) for key in keys]
    try:
        union = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise OndineError(
            f"The partitions of {snapshot.dataset}/results do not have the same types ({error}): "
            f"some are from before a change of the declaration. Bring them up to date first: "
            f"ondine-dagster run {snapshot.dataset}"
        ) from None
    known = {field.name: field for field in union}
    left_out = {*LINEAGE_COLUMNS, *ERROR_COLUMNS, *snapshot.source_columns}
    source = [name for name in snapshot.source_columns if name in known]
    output = [name for name in known if name not in left_out]
    traced = [name for name in more if name in known]
    fields = [known[name] for name in (*source, *output, *traced)]
    ours = [name for name in (QUESTION_VERSION_COLUMN, TRACE_COLUMN) if name in more]
    fields += [pa.field(name, pa.string()) for name in ours]
    return pa.schema(fields)


def _order(
    lake: Lake, snapshot: Snapshot, asset: str, keys: Sequence[str] | None = None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (position, file number, row in the file) of each row of the snapshot, in order."""
    import numpy as np

    keys = _with_files(lake, snapshot, asset) if keys is None else keys
    found = [np.empty((0, 3), dtype=np.int64)]
    named = _positions(snapshot)
    for number, key in enumerate(keys):
        names = lake.read(snapshot.dataset, asset, key, ["_row_key"])["_row_key"].to_pylist()
        here = named.get(key, {})
        rows = [(here[name], number, row) for row, name in enumerate(names) if name in here]
        found.append(np.asarray(rows, dtype=np.int64).reshape(-1, 3))
    together = np.concatenate(found)
    ordered: np.ndarray[Any, np.dtype[np.int64]] = together[np.argsort(together[:, 0])]
    return ordered


def _skipped(lake: Lake, snapshot: Snapshot, keys: Sequence[str]) -> int:
    """Count the rows of the snapshot that `when` has left out; files without any are not read."""
    name, count = snapshot.dataset, 0
    some = [
        key for key in keys if int(lake.metadata(name, "results", key).get("ondine.skipped") or 0)
    ]
    named = _positions(snapshot) if some else {}
    for key in some:
        table = lake.read(name, "results", key, ["_row_key", "_outcome"])
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        count += sum(outcome == "skipped" and row in named[key] for row, outcome in rows)
    return count


def _positions(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """Return, by partition, the position of each row key."""
    columns = read_columns(snapshot, ["_partition", "_row_key", "_position"])
    positions: dict[str, dict[str, int]] = {}
    for key, name, position in zip(*(column.to_pylist() for column in columns), strict=True):
        positions.setdefault(key, {})[name] = position
    return positions


class _Gathered:
    """Collects rows from the files of many partitions, a few of them in memory at a time."""

    def __init__(
        self,
        lake: Lake,
        dataset: str,
        keys: Sequence[str],
        schema: pa.Schema,
        traces: TraceIds | None,
    ) -> None:
        self.schema = schema
        self._traces = traces
        self._lake = lake
        self._dataset = dataset
        self._keys = keys
        self._open: OrderedDict[int, pa.Table] = OrderedDict()

    def rows(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
        """Return the rows at `places` (position, file number, row), in that order."""
        import numpy as np
        import pyarrow as pa

        files, rows = places[:, 1], places[:, 2]
        numbers = np.unique(files)
        pieces = [self._partition(int(number)).take(rows[files == number]) for number in numbers]
        # The pieces stand one file after the other: this is the way back to the order asked for.
        back = np.argsort(np.argsort(files, kind="stable"))
        table = pa.concat_tables(pieces).take(back)
        if "_position" not in table.column_names:
            return table
        index = table.column_names.index("_position")  # the file's own may be from before
        return table.set_column(index, table.field(index), [pa.array(places[:, 0])])

    def _partition(self, number: int) -> pa.Table:
        import pyarrow as pa

        if number not in self._open:
            key = self._keys[number]
            table = self._lake.read(self._dataset, "results", key)
            if QUESTION_VERSION_COLUMN in self.schema.names:
                notes = read_metadata(self._lake.path(self._dataset, "results", key))
                version = pa.repeat(pa.scalar(notes.get(_VERSION_NOTE), pa.string()), len(table))
                table = table.append_column(QUESTION_VERSION_COLUMN, version)
            if self._traces is not None and TRACE_COLUMN in self.schema.names:
                ids = self._traces(table[_ANSWER_KEY].to_pylist())
                table = table.append_column(TRACE_COLUMN, pa.array(ids, pa.string()))
            self._open[number] = as_schema(table, self.schema)
            if len(self._open) > _OPEN_PARTITIONS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]
