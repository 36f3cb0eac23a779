"""Which partition each row belongs to, or why it belongs to none.

Pure: rows in, keys or reasons out. For `rows` the partition of a known row is kept for ever; for
the other kinds the data decides, and a row whose value changes moves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ondine_dagster.privacy.scrubbing import beginning
from ondine_dagster.spec.file_names import FileNames
from ondine_dagster.storage.partition_keys import file_key, value_key
from ondine_dagster.storage.row_keys import canonical_json, plain_values
from ondine_dagster.storage.time_windows import TimeWindows, read_moment

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec import NoPartitions, Partitions, TimePartitions, ValuePartitions
    from ondine_dagster.spec.partitions import Kind

# The one partition of a dataset without partitions, and where rows are kept that fit none.
WHOLE, UNASSIGNED = "all", "_unassigned"
_PREFIX = "rows-"
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class FileRows:
    """How many rows came from a file.

    `name` is its path as the pattern writes it, `below` its path below the folder that the pattern
    looks through.
    """

    name: str
    below: str
    rows: int


@dataclass(slots=True)
class Placement:
    """The partition of every row, in order; `reasons` are those of the rows in UNASSIGNED.

    `next_number` is the first that no partition of rows was ever named by.
    """

    keys: list[str]
    next_number: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


def partition_key(number: int) -> str:
    """Return the key of the n-th partition of rows, counted from 0."""
    return f"{_PREFIX}{number:05d}"


def partition_number(key: str) -> int:
    """Return n for the key of the n-th partition of rows."""
    return int(key.removeprefix(_PREFIX))


def by_rows(
    row_keys: Sequence[str], known: Mapping[str, str], first_free: int, rows: int
) -> Placement:
    """Place rows by number: those that are `known` stay, new ones fill new partitions."""
    new_rows, keys = 0, []
    for row in row_keys:
        key = known.get(row)
        if key is None:
            key = partition_key(first_free + new_rows // rows)
            new_rows += 1
        keys.append(key)
    return Placement(keys, first_free - (-new_rows // rows))


def in_order(kind: Kind, keys: Iterable[str]) -> list[str]:
    """Return partition keys in their order."""
    return sorted(keys, key=partition_number) if kind == "rows" else sorted(keys)


def by_data(
    partitions: Partitions | NoPartitions, table: pa.Table, files: Sequence[FileRows]
) -> Placement:
    """Place rows by what they hold, or by the file that they are from."""
    if partitions.time is not None:
        return _by_time(partitions.time, table, files)
    if partitions.values is not None:
        column = partitions.values.column
        return _by_column(table, column, _value_reader(partitions.values))
    if partitions.kind == "files":
        return _by_file(files, lambda file: file_key(file.below))
    return Placement([WHOLE] * table.num_rows)


def kept_without_rows(
    partitions: Partitions | NoPartitions, before: Iterable[str], now: Collection[str]
) -> list[str]:
    """Return the partitions that lost all their rows, and that Dagster has nevertheless.

    They stay in the snapshot, so that they run again and their files are emptied. `before` are the
    partitions of the snapshot before, `now` those that rows are in.
    """
    if partitions.kind == "none":
        return [] if WHOLE in now else [WHOLE]
    gone = [key for key in before if key not in now]
    if partitions.time is not None:
        windows = TimeWindows(partitions.time)
        return [key for key in gone if windows.is_key(key)]
    if partitions.values is not None and partitions.values.listed is not None:
        listed = {value_key(value) for value in partitions.values.listed}
        return [key for key in gone if key in listed]
    return []  # Dagster hears of the others from the snapshot


class _NoPlaceError(Exception):
    """Says why a row fits no partition."""


def _by_time(declared: TimePartitions, table: pa.Table, files: Sequence[FileRows]) -> Placement:
    windows = TimeWindows(declared)
    if declared.filename is not None:
        names = FileNames(declared.filename)
        return _by_file(files, lambda file: _window_of_file(windows, names, file))
    assert declared.column is not None  # one of the two is declared
    name = declared.column
    return _by_column(table, name, lambda value: _window_of_value(windows, name, value))


def _window_of_file(windows: TimeWindows, names: FileNames, file: FileRows) -> str:
    moment = names.moment(file.name)
    if moment is None:
        raise _NoPlaceError(f"the name of the file {file.name} does not fit {names.pattern}")
    key = windows.key(moment)
    if key is None:
        raise _NoPlaceError(f"the file {file.name} is from before the first {windows.described}")
    return key


def _window_of_value(windows: TimeWindows, column: str, value: Any) -> str:
    if value is None or value == "":
        raise _NoPlaceError(f"{column} is empty, so the row has no time")
    moment = read_moment(value) if isinstance(value, str) else None
    if moment is None:
        raise _NoPlaceError(f"{column} is {_shown(value)}, which is no date, timestamp or ISO text")
    key = windows.key(moment)
    if key is None:
        raise _NoPlaceError(f"{column} is {_shown(value)}, before the first {windows.described}")
    return key


def _value_reader(declared: ValuePartitions) -> Callable[[Any], str]:
    listed = None if declared.listed is None else frozenset(declared.listed)

    def key(value: Any) -> str:
        if value is None or value == "":
            raise _NoPlaceError(f"{declared.column} is empty")
        text = value if isinstance(value, str) else canonical_json(value)
        if listed is not None and text not in listed:
            raise _NoPlaceError(f"{declared.column} is {_shown(text)}, which is not listed")
        return value_key(text)

    return key


def _by_column(table: pa.Table, name: str, key_of: Callable[[Any], str]) -> Placement:
    """Place rows by a column; every value is looked at once."""
    placement = Placement([])
    known: dict[Any, str] = {}
    refused: dict[Any, str] = {}
    for value in _values(table.column(name)):
        key = known.get(value)
        if key is None and value not in refused:
            try:
                key = known[value] = key_of(value)
            except _NoPlaceError as error:
                refused[value] = str(error)
        if key is None:
            placement.reasons[len(placement.keys)] = refused[value]
        placement.keys.append(UNASSIGNED if key is None else key)
    return placement


def _values(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        for value in plain_values(chunk):
            # a list or a struct is no key of a mapping; its JSON says the same
            yield canonical_json(value) if isinstance(value, (list, dict)) else value


def _by_file(files: Sequence[FileRows], key_of: Callable[[FileRows], str]) -> Placement:
    placement = Placement([])
    for file in files:
        try:
            key, reason = key_of(file), None
        except _NoPlaceError as error:
            key, reason = UNASSIGNED, str(error)
        if reason is not None:
            first = len(placement.keys)
            placement.reasons.update(dict.fromkeys(range(first, first + file.rows), reason))
        placement.keys.extend([key] * file.rows)
    return placement


def _shown(value: Any) -> str:
    return beginning(repr(value), _LONGEST_VALUE + 3)
