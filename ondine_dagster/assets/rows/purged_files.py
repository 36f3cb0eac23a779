"""Removes the texts of old answers from the lake's files; all else in them stays.

From `responses`, `rejected_rows` and `verified`: answers, and messages about them, which may quote
what they are about. A file that lost answers says so in its notes: it cannot be read anew, and no
run replaces it by one that answers fewer rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, VERIFIED
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.identity import id_at
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.sealed_texts import readable

if TYPE_CHECKING:
    import pyarrow as pa

PURGED_NOTE = "ondine.purged"


def refuse_purged(dataset: str, partition: str, notes: Mapping[str, str]) -> None:
    """Refuse to read the answers of a partition anew whose texts are gone."""
    if PURGED_NOTE in notes:
        raise OndineError(
            f"{dataset} {partition}: texts of its answers were purged, so they cannot be read "
            "anew. Its results stay as they are. To ask, and to pay, once more: ondine-dagster "
            f"run {dataset} --partition {quote(partition)} --pay-again"
        )


def texts_gone(lake: Lake, dataset: str, partition: str) -> bool:
    """Return whether answers of a partition cannot be read: purged, or under a key not given."""
    notes = lake.metadata(dataset, RESPONSES, partition)
    return PURGED_NOTE in notes or not readable(lake.path(dataset, RESPONSES, partition), notes)


def purge_files(lake: Lake, before_ms: int, dataset: str | None = None) -> int:
    """Remove the texts of answers to requests sent before `before_ms` (ms since the epoch, UTC).

    Of all datasets, or of one. Returns how many rows had one. A file that a run replaces meanwhile
    is left as that made it.
    """
    rows = 0
    for name in lake.datasets(RESPONSES):
        if dataset not in (None, name):
            continue
        for partition in lake.partitions(name, RESPONSES):
            rows += _purge(lake, name, partition, before_ms)
        if lake.exists(name, VERIFIED, None):
            _purge_verified(lake, name, before_ms)
    return rows


def _purge(lake: Lake, dataset: str, partition: str, before_ms: int) -> int:
    before, moment = id_at(before_ms), datetime.fromtimestamp(before_ms / 1000, UTC)
    responses = _File(lake, dataset, RESPONSES, partition)
    if "attempt_id" not in responses.table.column_names:
        return 0  # of an older version, which did not note when it was asked
    sent = dict(zip(responses.keys, responses.cells("attempt_id"), strict=True))
    old = {key for key, attempt in sent.items() if attempt is not None and attempt < before}
    responses.empty("text", old)
    responses.change("samples", lambda one: _emptied(one, "text", before))
    notes = {PURGED_NOTE: "true"} if responses.changed else {}
    responses.empty("error_message", old)
    responses.change("samples", lambda one: _messages(one, before, moment))
    responses.change("events", lambda one: _events(one, moment))
    responses.replace(notes)
    changed = responses.changed
    if lake.exists(dataset, REJECTED, partition):
        rejected = _File(lake, dataset, REJECTED, partition)
        rejected.empty("_raw_text", old)
        rejected.empty("_error_message", old)
        rejected.change("_events", lambda one: _events(one, moment))
        rejected.replace({})
        changed |= rejected.changed
    return len(changed)


def _purge_verified(lake: Lake, dataset: str, before_ms: int) -> None:
    file = _File(lake, dataset, VERIFIED, None)
    times = map(datetime.fromisoformat, file.cells("verified_at"))
    rows = zip(file.keys, times, strict=True)
    old = {key for key, at in rows if at.timestamp() * 1000 < before_ms}
    for column in ("before", "now", "why"):
        file.empty(column, old)
    file.replace({})


class _File:
    """A file of the lake, as it lies; `changed` are the keys of rows that lost a text."""

    def __init__(self, lake: Lake, dataset: str, asset: str, partition: str | None) -> None:
        self._lake = lake
        self._place = dataset, asset, partition
        self._version = self._now()
        self.table: pa.Table = lake.read(*self._place, as_it_lies=True)
        self.keys: list[str] = self.cells("_row_key")
        self.changed: set[str] = set()

    def cells(self, column: str) -> list[Any]:
        """Return the cells of a column."""
        cells: list[Any] = self.table.column(column).to_pylist()
        return cells

    def empty(self, column: str, keys: set[str]) -> None:
        """Make the cells of these rows NULL."""
        rows = zip(self.keys, self.cells(column), strict=True)
        self._put(column, [None if key in keys else cell for key, cell in rows])

    def change(self, column: str, make: Callable[[Sequence[Mapping[str, Any]]], Any]) -> None:
        """Change the lists of a column, where the file has it."""
        if column in self.table.column_names:
            self._put(column, [cell and make(cell) for cell in self.cells(column)])

    def _put(self, column: str, cells: list[Any]) -> None:
        import pyarrow as pa

        rows = zip(self.keys, self.cells(column), cells, strict=True)
        changed = {key for key, before, after in rows if before != after}
        if changed:
            index = self.table.schema.get_field_index(column)
            field = self.table.schema.field(index)
            self.table = self.table.set_column(index, field, pa.array(cells, field.type))
            self.changed |= changed

    def replace(self, notes: Mapping[str, str]) -> None:
        """Write the file, unless nothing has changed in it, or a run has replaced it meanwhile."""
        if not self.changed:
            return
        notes = {**self._lake.metadata(*self._place), **notes}
        with self._lake.open_writer(
            *self._place, self.table.schema, notes, as_it_lies=True
        ) as writer:
            writer.append(self.table)
            if self._now() == self._version:
                writer.commit()

    def _now(self) -> tuple[int, int]:
        found = os.stat(self._lake.path(*self._place))
        return found.st_ino, found.st_mtime_ns


_Records = Sequence[Mapping[str, Any]]


def _emptied(samples: _Records, name: str, before: bytes) -> list[dict[str, Any]]:
    return [
        {**one, name: None} if (one["attempt_id"] or before) < before else dict(one)
        for one in samples
    ]


def _messages(samples: _Records, before: bytes, moment: datetime) -> list[dict[str, Any]]:
    return [
        {**one, "events": one["events"] and _events(one["events"], moment)}
        for one in _emptied(samples, "error_message", before)
    ]


def _events(events: _Records, moment: datetime) -> list[dict[str, Any]]:
    return [{**one, "message": None} if one["at"] < moment else dict(one) for one in events]
