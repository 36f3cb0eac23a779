"""Reads JSON Lines and JSON lists of objects, or says which line or item is wrong.

Owns what of JSON a table can hold: objects whose keys are the columns, in the order in which they
are met. A missing key is NULL. What some parsers let pass is refused: NaN, a key twice in an
object, half a surrogate pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.plain_values import table_of
from ondine_dagster.storage.source_bytes import open_utf8

if TYPE_CHECKING:
    import pyarrow as pa

_LINES = "A file with an object in each line ends in .jsonl."
_ONE_LINE = "An object stands in one line; a file that is one list of objects ends in .json."
_Item = tuple[str, dict[str, Any]]


def read_json(path: Path, *, lines: bool) -> pa.Table:
    """Return all objects as rows; `lines`: one stands in each line, else in one list.

    Raises:
        OndineError: anything else is found; names the line or the item.
    """
    columns: dict[str, list[Any]] = {}
    count = 0
    try:
        for place, item in _by_line(path) if lines else _in_list(path):
            for name, value in item.items():
                if name not in columns:
                    _check_name(name, path, place)
                    columns[name] = [None] * count
                columns[name].append(value)
            count += 1
            if len(item) < len(columns):
                for values in columns.values():
                    if len(values) < count:
                        values.append(None)
    except UnicodeDecodeError as error:  # of another encoding by its mark, and damaged
        raise OndineError(f"{path} cannot be read: {error}. JSON is UTF-8: save it so.") from None
    if not columns:
        raise OndineError(f"{path} holds no object. A JSON source needs at least one, for columns.")
    return table_of(columns)


def _by_line(path: Path) -> Iterator[_Item]:
    with open_utf8(path, "utf-8") as file:
        for number, line in enumerate(_lines(file), start=1):
            if line.strip():
                place = f"line {number}"
                yield place, _object(_parse(_decoded(line, path, number), path, place), path, place)


def _lines(file: Any) -> Iterator[bytes]:
    rest = b""
    while block := file.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _in_list(path: Path) -> Iterator[_Item]:
    with open_utf8(path, "utf-8") as file:
        document = _parse(_decoded(file.read(), path), path, "")
    if not isinstance(document, list):
        raise OndineError(
            f"{path} holds no list. A JSON source is a list of objects, [{{...}}, {{...}}]. "
            f"{_LINES}"
        )
    for number, item in enumerate(document, start=1):
        place = f"item {number}"
        yield place, _object(item, path, place)


def _decoded(content: bytes, path: Path, line: int = 1) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise OndineError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02X} is not UTF-8. JSON is "
            "UTF-8: save it so."
        ) from None


def _parse(text: str, path: Path, place: str) -> Any:
    where = f"{path}, {place}" if place else str(path)
    try:
        parsed = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_distinct
        )
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if place else f"line {error.lineno}, column {error.colno}"
        advice = ""
        if place and text.strip() in ("{", "["):
            advice = f" {_ONE_LINE}"
        elif not place and error.msg == "Extra data":
            advice = f" {_LINES}"
        raise OndineError(f"{where} is no JSON: {error.msg} at {at}.{advice}") from None
    except (ValueError, RecursionError) as error:
        raise OndineError(f"{where} cannot be read: {error}.") from None
    if "\\u" in text and not _is_text(parsed):
        raise OndineError(f"{where} holds half of a surrogate pair, which is no character.")
    return parsed


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:60]} is too large for a number")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(item: Any, path: Path, place: str) -> dict[str, Any]:
    if isinstance(item, dict):
        return item
    advice = f" {_ONE_LINE}" if isinstance(item, list) else ""
    shown = json.dumps(item, ensure_ascii=False)[:60]
    raise OndineError(f"{path}, {place}: a row must be an object, {{...}}, not {shown!r}.{advice}")


def _check_name(name: str, path: Path, place: str) -> None:
    if not name:
        raise OndineError(f"{path}, {place}: a key is empty. It becomes a column: give it a name.")
