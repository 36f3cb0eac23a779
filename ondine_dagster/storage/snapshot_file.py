"""How a snapshot lies on disk: a Parquet file named by its version, and a JSON pointer to it.

Owns both formats. The file holds the rows grouped by partition, each group in input order, in row
groups that end where partitions end, so that one partition is read without the others. Everything
known about the snapshot stands in the file's metadata and again in the pointer.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import SNAPSHOT_COLUMNS
from ondine_dagster.storage.atomic import write_atomically
from ondine_dagster.storage.lake import Lake, MissingPartition
from ondine_dagster.storage.parquet_files import LakeWriter, read_table
from ondine_dagster.storage.partitioning import UNASSIGNED

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec.partitions import Kind

SNAPSHOT = "snapshot"
_POINTER = "current.json"
_METADATA_KEY = "ondine.snapshot"
_ASSIGNED = ("_row_key", "_partition")
# Smaller partitions share a row group: its description costs more than reading 1,000 rows.
_SMALLEST_ROW_GROUP = 1000
_READABLE_PARTITIONS = 1000


@dataclass(frozen=True)
class PartitionInfo:
    """A partition of a snapshot; `content_hash` depends on its rows but not on their order."""

    key: str
    rows: int
    content_hash: str


@dataclass(frozen=True)
class Snapshot:
    """One reading of a source. `version` is a hash of rows, order and partitions.

    `rows` are all of them, also the `unassigned_rows`, which fit none of the `partitions`.
    `source_files` are the sha256 (hex) of the files that were read, by name, where it was files.
    """

    dataset: str
    version: str
    path: Path
    taken_at: datetime
    source_path: str
    source_columns: tuple[str, ...]
    rows: int
    partitions: tuple[PartitionInfo, ...]
    next_partition: int
    kind: Kind = "rows"
    unassigned_rows: int = 0
    source_files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_key(self) -> Mapping[str, PartitionInfo]:
        """The partitions by their keys."""
        return {partition.key: partition for partition in self.partitions}


@dataclass(frozen=True)
class Pointer:
    """The current snapshot, and the versions that are kept, newest first."""

    snapshot: Snapshot
    kept: tuple[str, ...]


def write_snapshot(
    snapshot: Snapshot, table: pa.Table, keys: Sequence[str], places: Sequence[str]
) -> None:
    """Write the rows of `table`, in input order, as the file of `snapshot`; `places` are theirs."""
    import numpy as np
    import pyarrow as pa

    added = [
        pa.array(keys, pa.string()),
        pa.array(places, pa.string()),
        pa.array(range(table.num_rows), pa.int64()),
    ]
    ours = pa.table(added, names=list(SNAPSHOT_COLUMNS))
    schema = pa.schema([*ours.schema, *table.schema])
    whole = pa.Table.from_arrays([*ours.columns, *table.columns], schema=schema)
    rank = {partition.key: number for number, partition in enumerate(snapshot.partitions)}
    ranks = np.asarray([rank.get(place, len(rank)) for place in places], dtype=np.int64)
    with LakeWriter(snapshot.path, schema) as writer:
        for group in _row_groups(whole, ranks):
            writer.append_row_group(group)
        writer.commit({_METADATA_KEY: json.dumps(_as_json(snapshot))})


def _row_groups(table: pa.Table, ranks: Any) -> Iterator[pa.Table]:
    import numpy as np

    order = np.argsort(ranks, kind="stable")
    in_place = bool(np.all(order[:-1] < order[1:]))
    for start, stop in _cuts(np.flatnonzero(np.diff(ranks[order])) + 1, len(order)):
        # Slices are free; most snapshots are in the order of their partitions already.
        yield table.slice(start, stop - start) if in_place else table.take(order[start:stop])


def _cuts(boundaries: Any, rows: int) -> Iterator[tuple[int, int]]:
    start = 0
    for stop in [*boundaries.tolist(), rows]:
        if stop - start >= _SMALLEST_ROW_GROUP or (stop == rows and stop > start):
            yield start, stop
            start = stop


def partition_rows(lake: Lake, snapshot: Snapshot, key: str) -> pa.Table:
    """Return the rows of one partition in input order: `_row_key`, `_position`, source columns.

    Raises:
        OndineError: the snapshot has no such partition, or its file is gone.
    """
    _require_file(snapshot)
    if key not in snapshot.by_key:
        raise MissingPartition(
            f"Partition {key} has no rows in the current snapshot of dataset {snapshot.dataset} "
            f"(version {snapshot.version}): they were removed from the source. Choose another."
        )
    return rows_of(snapshot, key)


def rows_of(snapshot: Snapshot, place: str) -> pa.Table:
    """Return the rows at a place, as `partition_rows` does: none, where no row is there.

    Raises:
        OndineError: the snapshot's file is gone.
    """
    with SnapshotRows(snapshot) as rows:
        return rows.at(place)


class SnapshotRows:
    """The file of a snapshot, open: for reading one partition after the other."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Raises OndineError where the snapshot's file is gone."""
        import pyarrow.parquet as pq

        _require_file(snapshot)
        self._file = pq.ParquetFile(snapshot.path)
        groups = range(self._file.num_row_groups)
        sizes = (self._file.metadata.row_group(group).num_rows for group in groups)
        self._starts = [0, *accumulate(sizes)]
        self._places: dict[str, tuple[int, int]] = {}
        first = 0
        for place, rows in (
            *((one.key, one.rows) for one in snapshot.partitions),
            (UNASSIGNED, snapshot.unassigned_rows),
        ):
            self._places[place] = (first, first + rows)
            first += rows
        self._columns = ["_row_key", "_position", *snapshot.source_columns]
        self._last: tuple[int, pa.Table] | None = None

    def at(self, place: str) -> pa.Table:
        """Return the rows at a place: `_row_key`, `_position`, source columns, in input order."""
        import pyarrow as pa

        start, stop = self._places.get(place, (0, 0))
        first = max(bisect_right(self._starts, start) - 1, 0)
        pieces = [self._file.schema_arrow.empty_table()]
        for group in range(first, bisect_left(self._starts, stop)):
            begin = self._starts[group]
            table = self._group(group)
            pieces.append(table.slice(max(start - begin, 0), stop - max(start, begin)))
        # without what the file notes of the snapshot, which would go into every file made of it
        return pa.concat_tables(pieces).select(self._columns).replace_schema_metadata(None)

    def _group(self, number: int) -> pa.Table:
        if self._last is None or self._last[0] != number:  # neighbours share a row group
            self._last = number, self._file.read_row_group(number)
        return self._last[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_columns(snapshot: Snapshot, columns: Sequence[str]) -> list[pa.ChunkedArray]:
    """Return some columns of all rows, in the order of the file (partition by partition).

    Raises:
        OndineError: the file is gone.
    """
    _require_file(snapshot)
    return list(read_table(snapshot.path, columns).columns)


def assigned_partitions(snapshot: Snapshot) -> dict[str, str]:
    """Return the partition of every row by its key."""
    keys, places = (column.to_pylist() for column in read_columns(snapshot, _ASSIGNED))
    return dict(zip(keys, places, strict=True))


def snapshot_in_file(lake: Lake, name: str, version: str) -> Snapshot:
    """Return what a snapshot's file says about itself."""
    metadata = lake.metadata(name, SNAPSHOT, version)
    return _from_json(lake, json.loads(metadata[_METADATA_KEY]))


def read_pointer(lake: Lake, name: str) -> Pointer | None:
    """Return the pointer of a dataset, None before the first snapshot.

    Raises:
        OndineError: it is damaged.
    """
    path = _pointer_path(lake, name)
    try:
        content = json.loads(path.read_bytes())
        return Pointer(_from_json(lake, content["snapshot"]), tuple(content["kept"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise OndineError(
            f"{path}, the pointer to the current snapshot of dataset {name}, is damaged "
            f"({error!r}). Restore it, or delete the folder and take a new snapshot: all rows "
            f"then get new partitions, and answers already paid are found in the ledger."
        ) from None


def write_pointer(lake: Lake, snapshot: Snapshot, kept: Sequence[str]) -> None:
    """Make `snapshot` the current one, durably."""
    content = {"snapshot": _as_json(snapshot), "kept": list(kept)}
    # for people as long as they can read it; without the lines it is written ten times faster
    lines = 1 if len(snapshot.partitions) <= _READABLE_PARTITIONS else None
    text = json.dumps(content, indent=lines, ensure_ascii=False)
    write_atomically(_pointer_path(lake, snapshot.dataset), text.encode())


def _pointer_path(lake: Lake, name: str) -> Path:
    return lake.path(name, SNAPSHOT, None).with_name(_POINTER)


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    # Without the path: a data folder may be moved.
    fields = {each.name: getattr(snapshot, each.name) for each in dataclasses.fields(snapshot)}
    del fields["path"]
    return {
        **fields,
        "taken_at": snapshot.taken_at.isoformat(),
        "partitions": [
            {"key": one.key, "rows": one.rows, "content_hash": one.content_hash}
            for one in snapshot.partitions
        ],
    }


def _from_json(lake: Lake, fields: dict[str, Any]) -> Snapshot:
    return Snapshot(
        **{
            **fields,
            "path": lake.path(fields["dataset"], SNAPSHOT, fields["version"]),
            "taken_at": datetime.fromisoformat(fields["taken_at"]),
            "source_columns": tuple(fields["source_columns"]),
            "partitions": tuple(PartitionInfo(**each) for each in fields["partitions"]),
        }
    )


def _require_file(snapshot: Snapshot) -> None:
    if not snapshot.path.is_file():
        raise OndineError(
            f"The file of snapshot {snapshot.version} of dataset {snapshot.dataset} is gone "
            f"({snapshot.path}). Restore it, or delete its folder and take a new snapshot: all "
            f"rows then get new partitions, and answers already paid are found in the ledger."
        )
