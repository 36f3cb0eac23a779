"""Turns text columns into the types that `source.types` declares, or names the cell that resists.

Owns which spellings a type accepts. They are checked by pattern before pyarrow converts, because
what a library's parser lets pass (hexadecimal numbers, for one) is not ours to follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import its_columns

if TYPE_CHECKING:
    import pyarrow as pa

_DAY = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
_ZONE = r"(Z|[+-]\d{2}:?\d{2})"


@dataclass(frozen=True)
class _Spelling:
    pattern: str
    example: str


_SPELLINGS = {
    "integer": _Spelling(r"[+-]?\d+", "whole numbers from -2^63 to 2^63-1, such as 42"),
    "number": _Spelling(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", "numbers such as 19.90 or 1e6"),
    "boolean": _Spelling(r"(?i)(true|false|1|0)", "true, false, 1 and 0"),
    "date": _Spelling(_DAY, "dates such as 2024-12-31"),
    "timestamp": _Spelling(
        rf"{_DAY}([ T]{_TIME}{_ZONE}?)?",
        "times such as 2024-12-31T23:59:00 or 2024-12-31T23:59:00+01:00, with a zone in all "
        "rows or in none",
    ),
}


def cast_columns(table: pa.Table, types: Mapping[str, str], path: Path) -> pa.Table:
    """Return `table` with the columns of `types` converted; NULL and '' become NULL.

    Raises:
        OndineError: no such column, or a value does not fit; names column, row and value.
    """
    unknown = [name for name in types if name not in table.column_names]
    if unknown:
        raise OndineError(
            f"source.types: {path} has no column {', '.join(unknown)}. "
            f"{its_columns(table.column_names, unknown)}"
        )
    for name, wanted in types.items():
        if wanted != "text":
            index = table.column_names.index(name)
            table = table.set_column(index, name, _cast(table[name], name, wanted, path))
    return table


def _cast(column: pa.ChunkedArray, name: str, wanted: str, path: Path) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.ascii_trim_whitespace(column)
    text = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    fits = pc.match_substring_regex(text, f"^(?:{_SPELLINGS[wanted].pattern})$")
    if pc.all(fits, min_count=0).as_py():
        try:
            return _convert(text, _arrow_type(wanted, text))
        except pa.ArrowInvalid:
            pass  # 31 February, or a number too large: found cell by cell below
    raise OndineError(_complaint(column, text, fits, name, wanted, path))


def _convert(text: Any, target: pa.DataType) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(target):
        text = pc.replace_substring_regex(text, r"^\+", "")
    values = pc.cast(text, target)
    if pa.types.is_floating(target) and not pc.all(pc.is_finite(values), min_count=0).as_py():
        raise pa.ArrowInvalid("too large for a number")
    return values


def _arrow_type(wanted: str, text: pa.ChunkedArray) -> pa.DataType:
    """Return the Arrow type; times have a zone when the first one has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if wanted == "timestamp":
        zoned = pc.match_substring_regex(text, rf"{_ZONE}$").drop_null()
        has_zone = len(zoned) > 0 and ":" in text.drop_null()[0].as_py() and zoned[0].as_py()
        return pa.timestamp("us", tz="UTC" if has_zone else None)
    simple = {"integer": pa.int64, "number": pa.float64, "boolean": pa.bool_, "date": pa.date32}
    return simple[wanted]()


def _complaint(
    column: pa.ChunkedArray,
    text: pa.ChunkedArray,
    fits: pa.ChunkedArray,
    name: str,
    wanted: str,
    path: Path,
) -> str:
    target = _arrow_type(wanted, text)
    for row, (value, matched) in enumerate(zip(text, fits, strict=True)):
        if value.is_valid and not (matched.as_py() and _converts(value.as_py(), target)):
            return (
                f"{path}, column {name!r}, row {row + 1} (the first row after the header is 1): "
                f"{column[row].as_py()[:80]!r} is not {wanted}. source.types accepts "
                f"{_SPELLINGS[wanted].example}. Correct the value, or declare the column as text."
            )
    return f"{path}: column {name!r} cannot be read as {wanted}."


def _converts(text: str, target: pa.DataType) -> bool:
    import pyarrow as pa

    try:
        _convert(pa.chunked_array([[text]]), target)
    except pa.ArrowInvalid:
        return False
    return True
