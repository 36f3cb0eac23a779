"""Removes the texts of old answers from `responses` and `rejected_rows`; all else in them stays.

A file that lost texts says so in its notes: it cannot be read anew, and no run replaces it by one
that answers fewer rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.partition_counts import REJECTED, RESPONSES
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.identity import id_at
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

PURGED_NOTE = "ondine.purged"
_RAW_TEXT = "_raw_text"


def refuse_purged(dataset: str, partition: str, notes: Mapping[str, str]) -> None:
    """Refuse to read the answers of a partition anew whose texts are gone."""
    if PURGED_NOTE in notes:
        raise OndineError(
            f"{dataset} {partition}: texts of its answers were purged, so they cannot be read "
            "anew. Its results stay as they are. To ask, and to pay, once more: ondine-dagster "
            f"run {dataset} --partition {partition} --pay-again"
        )


def purge_files(lake: Lake, before_ms: int, dataset: str | None = None) -> int:
    """Remove the texts of answers to requests sent before `before_ms` (ms since the epoch, UTC).

    Of all datasets, or of one. Returns how many rows had one. A file that a run replaces meanwhile
    is left as that made it.
    """
    before = id_at(before_ms)
    return sum(
        _purge(lake, name, partition, before)
        for name in _datasets(lake)
        if dataset in (None, name)
        for partition in lake.partitions(name, RESPONSES)
    )


def _datasets(lake: Lake) -> list[str]:
    folders: Iterator[Path] = lake.root.iterdir() if lake.root.exists() else iter(())
    return sorted(one.name for one in folders if (one / RESPONSES).is_dir())


def _purge(lake: Lake, dataset: str, partition: str, before: bytes) -> int:
    version = _version(lake, dataset, RESPONSES, partition)
    table = lake.read(dataset, RESPONSES, partition, as_it_lies=True)
    if "attempt_id" not in table.column_names:
        return 0  # of an older version, which did not note when it was asked
    old = [one is not None and one < before for one in table.column("attempt_id").to_pylist()]
    texts = [None if is_old else one for one, is_old in _both(table, "text", old)]
    gone = table.column("text").null_count
    new = _with(table, "text", texts)
    if "samples" in table.column_names:
        samples = [_without_texts(one, before) for one in table.column("samples").to_pylist()]
        new = _with(new, "samples", samples)
    if new.equals(table):
        return 0
    keys = {key for key, is_old in _both(table, "_row_key", old) if is_old}
    _replace(lake, dataset, RESPONSES, partition, new, version)
    if lake.exists(dataset, REJECTED, partition):
        version = _version(lake, dataset, REJECTED, partition)
        rejected = lake.read(dataset, REJECTED, partition, as_it_lies=True)
        its = [key in keys for key in rejected.column("_row_key").to_pylist()]
        raw = [None if is_old else one for one, is_old in _both(rejected, _RAW_TEXT, its)]
        rejected = _with(rejected, _RAW_TEXT, raw)
        _replace(lake, dataset, REJECTED, partition, rejected, version)
    return int(new.column("text").null_count - gone)


def _both(table: pa.Table, column: str, old: Sequence[bool]) -> Iterator[tuple[Any, bool]]:
    return zip(table.column(column).to_pylist(), old, strict=True)


def _without_texts(
    samples: Sequence[Mapping[str, Any]] | None, before: bytes
) -> list[dict[str, Any]] | None:
    if samples is None:
        return None
    return [
        {**one, "text": None} if (one["attempt_id"] or before) < before else dict(one)
        for one in samples
    ]


def _with(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    import pyarrow as pa

    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, field.type))


def _version(lake: Lake, dataset: str, asset: str, partition: str) -> tuple[int, int]:
    found = os.stat(lake.path(dataset, asset, partition))
    return found.st_ino, found.st_mtime_ns


def _replace(
    lake: Lake, dataset: str, asset: str, partition: str, table: pa.Table, version: tuple[int, int]
) -> None:
    notes = {**lake.metadata(dataset, asset, partition), PURGED_NOTE: "true"}
    with lake.open_writer(
        dataset, asset, partition, table.schema, notes, as_it_lies=True
    ) as writer:
        writer.append(table)
        if _version(lake, dataset, asset, partition) == version:
            writer.commit()
