"""Refuses days and times that Python has not: prompts could not be made of them.

Parquet, DuckDB and Polars know days before the year 1 and after 9999, and nanoseconds in a time of
the day.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError

if TYPE_CHECKING:
    import pyarrow as pa

_DAY_ZERO = datetime.date(1970, 1, 1).toordinal()
_FIRST_DAY = 1 - _DAY_ZERO
_AFTER_LAST_DAY = datetime.date.max.toordinal() + 1 - _DAY_ZERO
_PER_DAY = {unit: 86_400 * 10**digits for unit, digits in (("s", 0), ("ms", 3), ("us", 6))}


def refuse_strange_times(table: pa.Table, shown: str) -> None:
    """Raise OndineError, with the column, where a value is a day or a time that Python has not."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _is_strange(column):
            raise OndineError(
                f"{shown}: column {name!r} holds a day before the year 1 or after 9999, or a time "
                "of the day with nanoseconds, which cannot be kept. Correct it, or make text of "
                "the column."
            )


def _is_strange(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, is_ = column.type, pa.types
    if is_.is_nested(kind):
        return _has_times(kind) and _stumbles(column)
    if is_.is_date(kind):
        low, high = _FIRST_DAY, _AFTER_LAST_DAY
        numbers = column.cast(pa.date32()).cast(pa.int32())
    elif is_.is_timestamp(kind) and kind.unit != "ns":  # nanoseconds reach from 1677 to 2262
        low, high = (day * _PER_DAY[kind.unit] for day in (_FIRST_DAY, _AFTER_LAST_DAY))
        numbers = column.cast(pa.int64())
    else:
        return is_.is_time64(kind) and _is_finer(column)
    found = pc.min_max(numbers).as_py()
    return found["min"] is not None and not (low <= found["min"] and found["max"] < high)


def _has_times(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return any(_has_times(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind))


def _is_finer(clock: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    try:
        clock.cast(pa.time64("us"))
    except pa.ArrowInvalid:  # it would lose something
        return True
    return False


def _stumbles(column: pa.ChunkedArray) -> bool:
    try:
        column.to_pylist()
    except (OverflowError, ValueError):
        return True
    return False
