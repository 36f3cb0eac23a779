"""How a snapshot lies on disk: a Parquet file named by its version, and a JSON pointer to it.

Owns both formats. The file holds the rows grouped by partition, each group in input order, in row
groups that end where partitions end, so that one partition is read without the others. Everything
known about the snapshot stands in the file's metadata and again in the pointer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import SNAPSHOT_COLUMNS
from ondine_dagster.storage.atomic import write_atomically
from ondine_dagster.storage.lake import Lake, LakeWriter, MissingPartition, read_table

if TYPE_CHECKING:
    import pyarrow as pa

SNAPSHOT = "snapshot"
_POINTER = "current.json"
_METADATA_KEY = "ondine.snapshot"
_KEY_PREFIX = "rows-"
# Smaller partitions share a row group: its description costs more than reading 1,000 rows.
_SMALLEST_ROW_GROUP = 1000


@dataclass(frozen=True)
class PartitionInfo:
    """A partition of a snapshot; `content_hash` depends on its rows but not on their order."""

    key: str
    rows: int
    content_hash: str


@dataclass(frozen=True)
class Snapshot:
    """One reading of a source. `version` is a hash of rows, order and partitions."""

    dataset: str
    version: str
    path: Path
    taken_at: datetime
    source_path: str
    source_columns: tuple[str, ...]
    rows: int
    partitions: tuple[PartitionInfo, ...]
    next_partition: int


@dataclass(frozen=True)
class Pointer:
    """The current snapshot, and the versions that are kept, newest first."""

    snapshot: Snapshot
    kept: tuple[str, ...]


def partition_key(number: int) -> str:
    """Return the key of the n-th partition of rows, counted from 0."""
    return f"{_KEY_PREFIX}{number:05d}"


def partition_number(key: str) -> int:
    """Return n for the key of the n-th partition of rows."""
    return int(key.removeprefix(_KEY_PREFIX))


def write_snapshot(
    snapshot: Snapshot, table: pa.Table, keys: Sequence[str], numbers: Sequence[int]
) -> None:
    """Write the rows of `table`, in input order, as the file of `snapshot`."""
    import pyarrow as pa

    names = {number: partition_key(number) for number in set(numbers)}
    added = [
        pa.array(keys, pa.string()),
        pa.array([names[number] for number in numbers], pa.string()),
        pa.array(range(table.num_rows), pa.int64()),
    ]
    ours = pa.table(added, names=list(SNAPSHOT_COLUMNS))
    schema = pa.schema([*ours.schema, *table.schema])
    whole = pa.Table.from_arrays([*ours.columns, *table.columns], schema=schema)
    with LakeWriter(snapshot.path, schema) as writer:
        for group in _row_groups(whole, numbers):
            writer.append_row_group(group)
        writer.commit({_METADATA_KEY: json.dumps(_as_json(snapshot))})


def _row_groups(table: pa.Table, numbers: Sequence[int]) -> Iterator[pa.Table]:
    import numpy as np

    order = np.argsort(np.asarray(numbers, dtype=np.int64), kind="stable")
    in_place = bool(np.all(order[:-1] < order[1:]))
    sorted_numbers = np.asarray(numbers, dtype=np.int64)[order]
    for start, stop in _cuts(np.flatnonzero(np.diff(sorted_numbers)) + 1, len(order)):
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
    import pyarrow.parquet as pq

    _require_file(snapshot)
    if all(partition.key != key for partition in snapshot.partitions):
        raise MissingPartition(
            f"Partition {key} has no rows in the current snapshot of dataset {snapshot.dataset} "
            f"(version {snapshot.version}): they were removed from the source. Choose another."
        )
    # partitioning=None: pyarrow would take folders named a=b for columns. A scan promises no order.
    return pq.read_table(
        lake.path(snapshot.dataset, SNAPSHOT, snapshot.version),
        columns=["_row_key", "_position", *snapshot.source_columns],
        filters=[("_partition", "=", key)],
        partitioning=None,
    ).sort_by("_position")


def read_columns(snapshot: Snapshot, columns: Sequence[str]) -> list[pa.ChunkedArray]:
    """Return some columns of all rows, in the order of the file (partition by partition).

    Raises:
        OndineError: the file is gone.
    """
    _require_file(snapshot)
    return list(read_table(snapshot.path, columns).columns)


def assigned_partitions(snapshot: Snapshot) -> dict[str, int]:
    """Return the partition number of every row key."""
    numbers = {partition.key: partition_number(partition.key) for partition in snapshot.partitions}
    keys, partitions = read_columns(snapshot, ["_row_key", "_partition"])
    assigned = (numbers[key] for key in partitions.to_pylist())
    return dict(zip(keys.to_pylist(), assigned, strict=True))


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
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_atomically(_pointer_path(lake, snapshot.dataset), text.encode())


def _pointer_path(lake: Lake, name: str) -> Path:
    return lake.path(name, SNAPSHOT, None).with_name(_POINTER)


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    # Without the path: a data folder may be moved.
    fields = {**asdict(snapshot), "taken_at": snapshot.taken_at.isoformat()}
    del fields["path"]
    return fields


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
