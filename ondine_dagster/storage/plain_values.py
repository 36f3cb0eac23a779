"""Columns of Python values as a table: one type for each column, and text where there are several.

For sources that bring values and no types (JSON, Excel, SQLite). A column of one kind keeps it;
nested or mixed values become text: lists and objects as JSON, all else as a prompt would show it,
so that a value of another kind, or the first fraction, changes no prompt of the other rows. Nothing
is rounded: whole numbers beside fractions become fractions only where that loses no digit.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ondine_dagster.spec.templates import as_shown

if TYPE_CHECKING:
    import pyarrow as pa

_LARGEST_INT = 2**63
_EXACT_IN_FLOAT = 2**53


def table_of(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return a table; None is NULL. Values are those of JSON, bytes and dates."""
    import pyarrow as pa

    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    simple = {bool: pa.bool_(), str: pa.string(), float: pa.float64(), bytes: pa.binary()}
    simple[datetime.date] = pa.date32()
    if not kinds:
        return pa.array(values, pa.string())
    kind = next(iter(kinds))
    if kinds == {int} and _all_below(values, _LARGEST_INT):
        return pa.array(values, pa.int64())
    if kinds == {int, float} and _all_below(values, _EXACT_IN_FLOAT):
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds == {datetime.datetime}:
        return pa.array(values, pa.timestamp("us"))
    if len(kinds) == 1 and kind in simple:
        return pa.array(values, simple[kind])
    return pa.array([_text(value) for value in values], pa.string())


def _all_below(values: Sequence[Any], bound: int) -> bool:
    whole = (value for value in values if type(value) is int)
    return all(-bound <= value < bound for value in whole)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(as_shown(value))
