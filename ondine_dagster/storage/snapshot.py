"""Snapshots: one reading of a source, with a name, a partition and a position for every row.

Owns taking them and finding them again. Where partitions are made of rows, a row that the current
snapshot knows keeps its partition for ever, and new rows get new partitions, whose numbers are
never used again; with the other kinds the data decides. The pointer
`current.json` is replaced last, so that a crash at any point leaves the previous snapshot valid.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import same_column
from ondine_dagster.storage.atomic import ensure_folder
from ondine_dagster.storage.dataset_source import ROW_KEY
from ondine_dagster.storage.headers import its_columns
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.locate import read_rows, shown
from ondine_dagster.storage.located import Located
from ondine_dagster.storage.parquet_files import read_schema
from ondine_dagster.storage.partitioning import (
    UNASSIGNED,
    Placement,
    by_data,
    by_rows,
    in_order,
    kept_without_rows,
    partition_number,
)
from ondine_dagster.storage.row_keys import RowIdentities, canonical_json, identify
from ondine_dagster.storage.snapshot_file import (
    SNAPSHOT,
    PartitionInfo,
    Snapshot,
    SnapshotRows,
    assigned_partitions,
    partition_rows,
    read_pointer,
    rows_of,
    snapshot_in_file,
    write_pointer,
    write_snapshot,
)
from ondine_dagster.storage.source_files import digests
from ondine_dagster.storage.strange_times import refuse_strange_times

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec import Dataset
    from ondine_dagster.spec.partitions import Kind
    from ondine_dagster.storage.partitioning import FileRows

__all__ = [
    "PartitionInfo",
    "Snapshot",
    "SnapshotResult",
    "SnapshotRows",
    "SourceEmptied",
    "check_columns",
    "current_snapshot",
    "empty_partition",
    "exclusive",
    "load_snapshot",
    "partition_rows",
    "rows_of",
    "take_snapshot",
]

_logger = logging.getLogger(__name__)
_KEPT = 3


class SourceEmptied(OndineError):
    """A source has lost all of its rows, and nobody is there who may mean it."""


@dataclass(frozen=True)
class SnapshotResult:
    """The current snapshot, and how its partitions differ from those of the one before.

    `changed` partitions are in both, with other content. `removed` ones have no rows any more.
    `reasons` say of each row that fits no partition, by its key, why. `other_kind` is the kind of
    partitions that the snapshot before had, where it is another. `rows_gone` is how many rows
    fewer there are.
    """

    snapshot: Snapshot
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    other_kind: Kind | None = None
    rows_gone: int = 0


def take_snapshot(
    lake: Lake, dataset: Dataset, source: Located, *, by_person: bool = True
) -> SnapshotResult:
    """Read the source and make it the current snapshot; an unchanged source changes nothing.

    Raises:
        OndineError: the source cannot be read, its columns collide with ours, or its key is NULL
            or repeats (BadKeys); or it has lost all of its rows (SourceEmptied), and no person is
            there to mean it.
    """
    with exclusive(lake, dataset.name):
        table, files = read_rows(dataset, source)
        names = None
        if dataset.source.dataset is not None:
            names = table[ROW_KEY].to_pylist()
            table = table.drop_columns([ROW_KEY])
        check_columns(dataset, table.column_names)
        refuse_strange_times(table, shown(source))
        identities = identify(table, dataset.source.key, names)
        previous = current_snapshot(lake, dataset.name)
        if previous is not None and previous.rows and not table.num_rows and not by_person:
            raise SourceEmptied(
                f"Dataset {dataset.name}: the source has no rows any more, and its snapshot has "
                f"{previous.rows:,}. Nothing was changed. If that is meant, materialize "
                f"{dataset.name}/snapshot yourself."
            )
        placement = _place(dataset, previous, table, identities.keys, files)
        taken = _describe(lake, dataset, previous, source, table, identities, placement)
        current = _store(lake, previous, taken, table, identities, placement)
    reasons = {identities.keys[row]: reason for row, reason in placement.reasons.items()}
    other_kind = previous.kind if previous and previous.kind != current.kind else None
    rows_gone = max(0, previous.rows - current.rows) if previous else 0
    changes = _compare(previous, current)
    return replace(changes, reasons=reasons, other_kind=other_kind, rows_gone=rows_gone)


def current_snapshot(lake: Lake, name: str) -> Snapshot | None:
    """Return the current snapshot of a dataset, None if none was ever taken.

    Raises:
        OndineError: the pointer is damaged or its file is gone.
    """
    pointer = read_pointer(lake, name)
    return None if pointer is None else pointer.snapshot


def load_snapshot(lake: Lake, name: str, version: str) -> Snapshot:
    """Return a snapshot that is still kept, such as the one that a run has pinned.

    Raises:
        OndineError: its file is gone; only the last 3 are kept.
    """
    if not lake.exists(name, SNAPSHOT, version):
        raise OndineError(
            f"Snapshot {version} of dataset {name} is gone: only the last {_KEPT} are kept. "
            f"Start a new run; it works on the current one."
        )
    return snapshot_in_file(lake, name, version)


def check_columns(dataset: Dataset, columns: Sequence[str]) -> None:
    """Refuse source columns that would collide with ours, and keys that are not there.

    Raises:
        OndineError: names the dataset, the columns and the way out.
    """
    if not columns:
        raise OndineError(f"Dataset {dataset.name}: the source has no columns.")
    unknown = [name for name in dataset.source.key if name not in columns]
    if unknown:
        raise OndineError(
            f"Dataset {dataset.name}: source.key names {', '.join(unknown)}, which the source does "
            f"not have. {its_columns(columns, unknown)}"
        )
    column = dataset.partitions.column
    if column is not None and column not in columns:
        raise OndineError(
            f"Dataset {dataset.name}: partitions.{dataset.partitions.kind}.column names {column}, "
            f"which the source does not have. {its_columns(columns, [column])}"
        )
    reserved = _collisions(columns, dataset.reserved_columns())
    if reserved:
        raise OndineError(
            f"Dataset {dataset.name}: the source has columns that are added to the results: "
            f"{', '.join(reserved)}. Rename them in the source."
        )
    taken = _collisions(columns, dataset.output_columns())
    if taken:
        raise OndineError(
            f"Dataset {dataset.name}: source and output both have the columns {', '.join(taken)}. "
            f"Rename the output (`column:` of the field, or `output.column` for plain text)."
        )


def _collisions(columns: Sequence[str], ours: Sequence[str] | frozenset[str]) -> list[str]:
    known = {same_column(name) for name in ours}
    return [name for name in columns if same_column(name) in known]


@contextmanager
def exclusive(lake: Lake, name: str) -> Iterator[None]:
    """Let one process at a time take a snapshot of a dataset: two would share out the numbers.

    The lock dies with its process, so there is nothing to clean up and no time limit.
    """
    folder = lake.path(name, SNAPSHOT, None).parent
    ensure_folder(folder)
    with open(folder / ".lock", "wb", opener=partial(os.open, mode=0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.info("dataset %s: waiting for another process to finish its snapshot", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(
    dataset: Dataset,
    previous: Snapshot | None,
    table: pa.Table,
    row_keys: Sequence[str],
    files: Sequence[FileRows],
) -> Placement:
    """Return the partition of each row. Numbers are never used again, also after other kinds."""
    first_free = 0 if previous is None else previous.next_partition
    rows = dataset.partitions.rows
    if rows is None:
        return replace(by_data(dataset.partitions, table, files), next_number=first_free)
    same_kind = previous is not None and previous.kind == "rows"
    known = assigned_partitions(previous) if previous is not None and same_kind else {}
    return by_rows(row_keys, known, first_free, rows)


def _describe(
    lake: Lake,
    dataset: Dataset,
    previous: Snapshot | None,
    source: Located,
    table: pa.Table,
    identities: RowIdentities,
    placement: Placement,
) -> Snapshot:
    # The columns are part of every hash: a renamed one changes what prompts and people see.
    header = canonical_json(table.column_names).encode()
    kind = dataset.partitions.kind
    version = _version(header, identities.hashes, placement.keys, kind)
    before = previous.by_key if previous is not None and previous.kind == kind else ()
    emptied = kept_without_rows(dataset.partitions, before, set(placement.keys))
    return Snapshot(
        dataset=dataset.name,
        version=version,
        path=lake.path(dataset.name, SNAPSHOT, version),
        taken_at=datetime.now(UTC),
        source_path=shown(source),
        source_columns=tuple(table.column_names),
        rows=table.num_rows,
        partitions=_partitions(header, identities.hashes, placement.keys, kind, emptied),
        next_partition=placement.next_number,
        kind=kind,
        unassigned_rows=len(placement.reasons),
        source_files=digests(dataset, source) if isinstance(source, Path) else {},
    )


def _version(header: bytes, hashes: Sequence[bytes], places: Sequence[str], kind: Kind) -> str:
    """Return a hash of rows, order and partitions: the same rows placed otherwise are another."""
    digest = sha256(header if kind == "rows" else header + kind.encode())
    marks = {place: _mark(kind, place) for place in set(places)}
    for row_hash, place in zip(hashes, places, strict=True):
        digest.update(row_hash + marks[place])
    return digest.hexdigest()[:32]


def _mark(kind: Kind, place: str) -> bytes:
    if kind == "rows":
        return partition_number(place).to_bytes(8, "big")
    return place.encode() + b"\0"


def content_hash(header: bytes, row_hashes: Iterable[bytes]) -> str:
    """Return the hash of a partition's rows, which does not depend on their order."""
    return sha256(header + b"".join(sorted(row_hashes))).hexdigest()


def _partitions(
    header: bytes,
    hashes: Sequence[bytes],
    places: Sequence[str],
    kind: Kind,
    without_rows: Iterable[str],
) -> tuple[PartitionInfo, ...]:
    members: dict[str, list[bytes]] = {key: [] for key in without_rows}
    for row_hash, place in zip(hashes, places, strict=True):
        members.setdefault(place, []).append(row_hash)
    members.pop(UNASSIGNED, None)
    return tuple(
        PartitionInfo(key, len(members[key]), content_hash(header, members[key]))
        for key in in_order(kind, members)
    )


def empty_partition(snapshot: Snapshot, key: str) -> PartitionInfo:
    """Return the description of a partition without rows, such as a window in which none fell."""
    header = canonical_json(snapshot.source_columns).encode()
    return PartitionInfo(key, 0, content_hash(header, ()))


def _store(
    lake: Lake,
    previous: Snapshot | None,
    taken: Snapshot,
    table: pa.Table,
    identities: RowIdentities,
    placement: Placement,
) -> Snapshot:
    """Write the file, then the pointer, then drop what is no longer kept; return what counts."""
    pointer = read_pointer(lake, taken.dataset)
    before = () if pointer is None else pointer.kept
    if previous is not None and _is_unchanged(previous, taken, table.schema):
        path, files = taken.source_path, taken.source_files
        same = replace(previous, source_path=path, source_files=files)
        if same != previous:  # the same rows from another place
            previous = same
            write_pointer(lake, previous, before)
        return previous
    write_snapshot(taken, table, identities.keys, placement.keys)
    kept = tuple(dict.fromkeys((taken.version, *before)))[:_KEPT]
    write_pointer(lake, taken, kept)
    for version in lake.partitions(taken.dataset, SNAPSHOT):
        if version not in kept:
            lake.delete(taken.dataset, SNAPSHOT, version)
    return taken


def _is_unchanged(previous: Snapshot, taken: Snapshot, schema: pa.Schema) -> bool:
    """Equal values can have other types, int32 and int64 for one; the file must follow them."""
    if previous.version != taken.version:
        return False
    stored = read_schema(previous.path)
    return all(stored.field(field.name).equals(field) for field in schema)


def _compare(previous: Snapshot | None, current: Snapshot) -> SnapshotResult:
    before = _content(previous)
    after = _content(current)
    return SnapshotResult(
        snapshot=current,
        added=tuple(key for key in after if key not in before),
        removed=tuple(key for key in before if key not in after),
        changed=tuple(key for key in after if key in before and before[key] != after[key]),
    )


def _content(snapshot: Snapshot | None) -> Mapping[str, str]:
    partitions = () if snapshot is None else snapshot.partitions
    return {partition.key: partition.content_hash for partition in partitions}
