"""Requests that ask about many items at once, and their answers: what a model makes of them. Pure.

A pack is a user message that lists its items as JSON objects or as lines of CSV, each with a code,
where the answer is to be a list with the same codes. Owns how it is read, how the answer to it is
written down, and the faults that only such an answer can have.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_DECODER = json.JSONDecoder()
_SPECIAL = re.compile(r'[,"\r\n]')
# the line before the table ends with a colon, and its first column are the codes
_TABLE = re.compile(
    r'^(?P<schema>\{"type":"object","properties":.*\})\n.*:\n(?=(?P<code>\w+),)', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Pack:
    """What a pack asks: `items` are (code, text), and each answer is to fit `schema`.

    `code` is the key of the codes, `answers` that of the list, None where the answer is to be CSV;
    `around` is the message without its items.
    """

    code: str
    answers: str | None
    schema: Schema
    items: Sequence[tuple[str, str]]
    around: str

    def identity(self, before: str) -> str:
        """Return what the request asks, codes apart: they differ from one try to the next.

        `before` is the identity of the messages before it.
        """
        texts = [before, self.around, *(text for _, text in self.items)]
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

    def written(self, answers: Sequence[Mapping[str, Any]]) -> str:
        """Return the text of the answer, from one answer per item."""
        pairs = zip(self.items, answers, strict=True)
        listed = [{self.code: code, **answer} for (code, _), answer in pairs]
        if self.answers is not None:
            return json.dumps({self.answers: listed}, ensure_ascii=False)
        header = [self.code, *self.schema["properties"]]
        return _csv([header, *([_cell(one.get(name)) for name in header] for one in listed)])


def read_pack(text: str, schema: Schema | None) -> Pack | None:
    """Return the pack that a user message is; None where it asks one question."""
    if schema is None:
        return _csv_pack(text)
    wanted = _listed(schema)
    return _json_pack(text, *wanted) if wanted else None


def _json_pack(text: str, answers: str, code: str, schema: Schema) -> Pack | None:
    for start in re.finditer(rf'\[\{{"{re.escape(code)}":', text):
        try:
            items, end = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if all(isinstance(one, dict) and isinstance(one.get(code), str) for one in items):
            read = [(one.pop(code), _text(one)) for one in items]
            return Pack(code, answers, schema, read, text[: start.start()] + text[end:])
    return None


def _csv_pack(text: str) -> Pack | None:
    """Return the pack of a message that tells a schema in a line, and ends with a table."""
    found = _TABLE.search(text)
    if found is None:
        return None
    try:
        schema = json.loads(found["schema"])
        rows = [row for row in csv.reader(io.StringIO(text[found.end() :], newline="")) if row]
    except (ValueError, csv.Error):
        return None
    header, *rows = rows
    if not all(len(row) == len(header) for row in rows):
        return None
    items = [(row[0], "\n".join(row[1:])) for row in rows]
    return Pack(found["code"], None, schema, items, f"{found[0]}{header}")


def _listed(schema: Schema) -> tuple[str, str, Schema] | None:
    """Return the names of the list and of the code in it, and the schema of what is beside it."""
    properties = schema.get("properties", {})
    if len(properties) != 1:
        return None
    ((answers, listed),) = properties.items()
    item = listed.get("items", {}) if listed.get("type") == "array" else {}
    fields = dict(item.get("properties", {}))
    code = next(iter(fields), None)
    if code is None or fields.pop(code) != {"type": "string"} or not fields:
        return None
    return answers, code, {**item, "properties": fields}


def _text(item: Mapping[str, Any]) -> str:
    return "\n".join(value for value in item.values() if isinstance(value, str))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"{','.join(map(_quoted, row))}\n" for row in rows)


def _quoted(cell: str) -> str:
    # csv.writer leaves a lone carriage return bare, which its reader takes for the end of a line
    return '"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell


# What an answer to a pack is made of while a fault changes it: JSON objects, or lines of CSV
_Item = dict[str, Any] | list[str]


def _fault(change: Callable[[list[_Item]], Sequence[_Item]]) -> Callable[[str], str]:
    """Change the items of an answer; one that is no answer to a pack stays as it is."""

    def apply(text: str) -> str:
        parts = _parts(text)
        if parts is None:
            return text
        head, items = parts
        changed = change(items)
        if isinstance(head, str):
            return json.dumps({head: changed}, ensure_ascii=False)
        return _csv([head, *(row for row in changed if isinstance(row, list))])

    return apply


def _parts(text: str) -> tuple[str | list[str], list[_Item]] | None:
    """Return the name of the list and its items, or the header and the lines."""
    try:
        document = json.loads(text)
    except ValueError:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        same = len(rows) > 1 and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1
        return (rows[0], [*rows[1:]]) if same else None
    if not isinstance(document, dict) or len(document) != 1:
        return None
    ((name, items),) = document.items()
    listed = isinstance(items, list) and all(isinstance(one, dict) for one in items)
    return (name, items) if listed else None


def _recoded(item: _Item, code: str) -> _Item:
    if isinstance(item, list):
        return [code, *item[1:]]
    return {**item, next(iter(item)): code}


def _malformed(text: str) -> str:
    """Break the second item, or the only one, in its middle."""
    parts = _parts(text)
    if parts is None:
        return text
    head, items = parts
    one = items[len(items) > 1]
    if isinstance(one, list):
        one.pop()  # lines of unequal length
        return _csv([head, *items])  # type: ignore[list-item]
    whole = json.dumps(one, ensure_ascii=False)
    return text.replace(whole, whole[: -len(whole) // 3] + "}")


def _in_prose(text: str) -> str:
    if _parts(text) is None:
        return text
    return f"Sure, here are the answers:\n\n{text}\n\nAnything else?"


# every third item from the second one on, so that a pack of two has one too
_HIT = slice(1, None, 3)


def _without_hit(items: list[_Item]) -> list[_Item]:
    del items[_HIT]
    return items


# The faults that change the answer to a pack, and no other one.
PACK_CONTENTS: Mapping[str, Callable[[str], str]] = {
    "pack_missing": _fault(_without_hit),
    "pack_repeated": _fault(lambda items: [*items, *items[_HIT]]),
    "pack_reordered": _fault(lambda items: items[::-1]),
    "pack_renumbered": _fault(
        lambda items: [_recoded(one, str(number)) for number, one in enumerate(items, 1)]
    ),
    "pack_strange": _fault(lambda items: [_recoded(items[0], "zzzzzz"), *items[1:]]),
    "pack_malformed": _malformed,
    "pack_prose": _in_prose,
}
