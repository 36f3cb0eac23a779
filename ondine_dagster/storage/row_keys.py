"""What a row is called and what its content is: row keys and hashes that stay the same for ever.

Owns the canonical form of values: JSON written by Python's own json module from plain values, never
by a library whose formatting may change with its version, because a changed hash would take every
row for a new one. Plain values: text, whole numbers, true, false and null as in JSON; floats by
their shortest repr; dates and times in ISO 8601, with 6 digits of fraction when there is one (9 for
nanoseconds) and in UTC (`+00:00`) when the column has a zone; decimals as text; bytes in hex;
durations as a number with its unit; lists and structs as JSON with sorted keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.wording import listed, plural

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 10_000
_EXAMPLES = 3
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1)
# what a row is called, by its values and its content
_Namer = Callable[[tuple[Any, ...], Callable[[], str]], str]
_DAY_ZERO = _EPOCH.toordinal()


class BadKeys(OndineError):
    """A declared key is NULL or not unique: rows could not be told apart."""


@dataclass(frozen=True)
class RowIdentities:
    """Of each row, in input order: its key, and the hash of its key and all its values."""

    keys: list[str]
    hashes: list[bytes]


def canonical_json(value: Any) -> str:
    """Return a plain value as JSON: sorted keys, no spaces, no escapes beyond JSON's own."""
    return _ENCODER.encode(value)


def identify(
    table: pa.Table, key: Sequence[str], names: Sequence[str] | None = None
) -> RowIdentities:
    """Name the rows of `table` by the columns `key`, or by all values if there are none.

    `names` are those that the rows have without a declared key, None: none.

    Raises:
        BadKeys: a declared key is NULL or not unique; gives examples.
    """
    namer = _namer(table.column_names, key, names)
    keys, hashes = [], []
    for row in plain_rows(table):
        content = sha256(_ENCODER.encode(row).encode())
        name = namer(row, content.hexdigest)
        keys.append(name)
        hashes.append(sha256(name.encode() + content.digest()).digest())
    if key:
        _refuse_bad_keys(keys, table, key)
    return RowIdentities(keys, hashes)


def plain_rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as tuples of plain values, a batch in memory at a time."""
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield from zip(*(plain_values(column) for column in batch.columns), strict=True)


def plain_values(column: pa.Array) -> list[Any]:
    """Return the values of a column as what JSON can hold (see the top of this module)."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_values(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_values(column.dictionary_decode())
    if pa.types.is_date(kind):
        return _each(column.cast(pa.date32()).cast(pa.int32()), _day)
    if pa.types.is_timestamp(kind):
        zone = "" if kind.tz is None else "+00:00"
        return _each(column.cast(pa.int64()), lambda ticks: _instant(ticks, kind.unit) + zone)
    if pa.types.is_time(kind):
        whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return _each(column.cast(whole), lambda ticks: _instant(ticks, kind.unit)[11:])
    if pa.types.is_duration(kind):
        return _each(column.cast(pa.int64()), lambda ticks: f"{ticks}{kind.unit}")
    return _plain_list(column)


def _plain_list(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    sample = next((value for value in values if value is not None), None)
    if isinstance(sample, (Decimal, bytes)):
        return [None if value is None else plain(value) for value in values]
    return values


def _each(numbers: pa.Array, text: Callable[[int], str]) -> list[str | None]:
    return [None if number is None else text(number) for number in numbers.to_pylist()]


def _day(days: int) -> str:
    try:
        return date.fromordinal(_DAY_ZERO + days).isoformat()
    except (ValueError, OverflowError):  # before year 1 or after 9999
        return f"{days}d"


def _instant(ticks: int, unit: str) -> str:
    seconds, rest = divmod(ticks, _UNITS_PER_SECOND[unit])
    nanoseconds = rest * (10**9 // _UNITS_PER_SECOND[unit])
    digits = f".{nanoseconds:09d}" if nanoseconds else ""
    digits = digits.removesuffix("000")
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat() + digits
    except OverflowError:  # before year 1 or after 9999
        return f"{ticks}{unit}"


def plain(value: Any) -> Any:
    """Return the plain form of a value inside a list or struct; json calls it for strangers."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=plain
)


def _namer(columns: Sequence[str], key: Sequence[str], names: Sequence[str] | None) -> _Namer:
    if key:
        return _by_columns(columns, key)
    if names is None:
        return _ByContent()
    given = iter(names)
    return lambda row, content: next(given)


class _ByContent:
    """Names rows by the hash of their values; exact duplicates after the first get -2, -3, ..."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def __call__(self, row: tuple[Any, ...], content: Callable[[], str]) -> str:
        name = content()
        count = self._seen[name] = self._seen.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"


def _by_columns(columns: Sequence[str], key: Sequence[str]) -> _Namer:
    places = [columns.index(name) for name in key]
    if len(places) > 1:
        return lambda row, _: _ENCODER.encode([row[place] for place in places])
    only = places[0]
    return lambda row, _: row[only] if isinstance(row[only], str) else _ENCODER.encode(row[only])


def _refuse_bad_keys(keys: list[str], table: pa.Table, key: Sequence[str]) -> None:
    named = ", ".join(key)
    for name in key:
        if table[name].null_count:
            rows = [row + 1 for row, value in enumerate(table[name]) if not value.is_valid]
            raise BadKeys(
                f"source.key {name!r} is empty in {plural(len(rows), 'row')}: "
                f"{listed(rows, _EXAMPLES)} (the first row of data is 1). Every row needs its key: "
                f"fill it in, or declare another key."
            )
    if len(set(keys)) < len(keys):
        raise BadKeys(
            f"source.key ({named}) is not unique: {_duplicates(keys)} (the first row of data is "
            f"1). Declare a key that is, add a column to it, or remove the duplicates."
        )


def _duplicates(keys: list[str]) -> str:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(keys, start=1):
        rows.setdefault(name, []).append(row)
    repeated = {name: found for name, found in rows.items() if len(found) > 1}
    shown = [
        f"{name[:60]!r} in rows {listed(found, _EXAMPLES)}"
        for name, found in list(repeated.items())[:_EXAMPLES]
    ]
    return f"{len(repeated)} keys occur more than once: {'; '.join(shown)}"
