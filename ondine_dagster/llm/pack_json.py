"""Packs as JSON: each row an object with its code, in the request and in the answer. Pure.

Reads answers that are damaged as far as they can be trusted: what stands whole under a code that
was given is that row's answer, whatever became of the items beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Never

from pydantic_core import from_json

from ondine_dagster.llm.pack_words import free_name, introduction, question, without_thoughts
from ondine_dagster.llm.packing import (
    Outcomes,
    Split,
    nullable,
    shared_ends,
    shortest_answer,
    user_message,
)
from ondine_dagster.llm.provider import Schema
from ondine_dagster.llm.reply_json import without_surrogates
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import compact_json

_ANSWERS, _ANSWER, _TEXT = "answers", "answer", "text"
_ORDER = (
    '\nAnswer with a JSON object {{"answers": [...]}}, with one object for each item, in the order '
    "of the items: first `{code}`, the item's code copied letter by letter, then its answer "
    "{where}. Leave no item out, and answer none twice.\nThe items:\n"
)
_COUNT = "\nThese were {count} items, so there are {count} answers."


class JsonPacking:
    """Packs whose rows and answers are objects with the row's code."""

    def __init__(self, schema: Schema | None, static: StaticText) -> None:
        """`schema` is the wire schema of one row's answer, None for plain text; `static` what the
        user messages of all rows have in common, of which the ends are said once."""
        self._static = static
        self.empty = static.head + static.tail
        fields: Schema = (schema or {}).get("properties") or {}
        self._nested = not fields  # the answer is plain text, or JSON without fields of its own
        self._code = free_name(fields)
        self._required = frozenset(
            [_ANSWER] if self._nested else (n for n, part in fields.items() if not nullable(part))
        )
        self._plain = schema is None
        self.schema: Schema = _pack_schema(self._code, schema, nested=self._nested)
        answer = {_ANSWER: ""} if self._nested else shortest_answer(schema or {})
        # an answer in `_ANSWER` is there as a whole, a text in quotes; a comma follows each
        alone = 0 if self._nested else len(compact_json(answer))
        self.answer_bytes = len(compact_json({self._code: "bcd", **answer})) + 1 - alone
        if self._nested and not self._plain:
            self.answer_bytes -= len('""')
        self._start = re.compile(rf'\{{\s*"{self._code}"\s*:\s*')
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def compose(self, prefix: str, items: Sequence[tuple[str, str]]) -> str:
        """Return the messages of a pack as canonical JSON, what its rows share said once."""
        head, tail = shared_ends(self._static, [text for _, text in items])
        listed = [
            {self._code: code, _TEXT: text[len(head) : len(text) - len(tail)]}
            for code, text in items
        ]
        where = f"in `{_ANSWER}`" if self._nested else "in the fields of the schema"
        said = introduction("a JSON array of objects", self._code)
        said += question([head, tail])
        said += _ORDER.format(code=self._code, where=where)
        return user_message(prefix, said + compact_json(listed) + _COUNT.format(count=len(listed)))

    def split(self, text: str, codes: Sequence[str], *, cut: bool) -> Split:
        """Return the answer of each row; `cut`: the text ended at the ceiling. Never raises."""
        outcomes = Outcomes(codes, cut=cut)
        for code, item in self._items(text):
            if code is not None:
                outcomes.add(code, self._answer(item), broken=item is None)
        return outcomes.split()

    def _items(self, text: str) -> Iterator[tuple[str | None, Any]]:
        """Yield the code and the rest of each item; None for the rest of one that is broken."""
        try:
            found = _listed(from_json(text, allow_inf_nan=False))
        except ValueError:
            yield from self._salvaged(text)
            return
        for item in found:
            if isinstance(item, dict):
                yield self._popped(item), item

    def _salvaged(self, text: str) -> Iterator[tuple[str | None, Any]]:
        """Yield the items of a text that is no JSON as a whole: cut, broken, or in prose."""
        text = without_thoughts(text, "{", "[")
        end = 0
        for start in self._start.finditer(text):
            if start.start() < end:
                continue  # an object within the last item
            try:
                item, end = self._decoder.raw_decode(text, start.start())
            except (ValueError, RecursionError):
                yield self._code_at(text, start.end()), None
            else:
                yield self._popped(item), item

    def _popped(self, item: dict[str, Any]) -> str | None:
        return _code(item.pop(self._code, None))

    def _code_at(self, text: str, start: int) -> str | None:
        """Return the code of an item that is broken further on."""
        try:
            return _code(self._decoder.raw_decode(text, start)[0])
        except (ValueError, RecursionError):
            return None

    def _answer(self, item: Any) -> str | None:
        """Return what a request for the row alone would have brought; None for another shape."""
        if not isinstance(item, dict) or not self._required <= item.keys():
            return None
        answer = item[_ANSWER] if self._nested else item
        if self._plain:
            usable = isinstance(answer, str) and answer.strip()
            return without_surrogates(answer) if usable else None
        try:
            return _storable(answer)
        except ValueError:
            return None


def _code(value: Any) -> str | None:
    """Return a code as the model gave it; a number is one, though none of ours."""
    return str(value) if isinstance(value, str | int) else None


def _pack_schema(code: str, schema: Schema | None, *, nested: bool) -> Schema:
    """Return the schema of the answer to a pack, every item with its code first."""
    row = schema or {"type": "string"}
    if nested:
        row = {"type": "object", "properties": {_ANSWER: row}, "required": [_ANSWER]}
    item = {
        **row,
        "properties": {code: {"type": "string"}, **row["properties"]},
        "required": [code, *row.get("required", ())],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {_ANSWERS: {"type": "array", "items": item}},
        "required": [_ANSWERS],
        "additionalProperties": False,
    }


def _listed(document: Any) -> Sequence[Any]:
    """Return the items of an answer that is JSON, also where it names the list otherwise."""
    if isinstance(document, dict):
        named = document.get(_ANSWERS)
        if named is None:
            lists = [value for value in document.values() if isinstance(value, list)]
            named = lists[0] if len(lists) == 1 else [document]
        document = named
    return document if isinstance(document, list) else ()


def _storable(answer: Any) -> str:
    """Return JSON; half a surrogate pair stays spelt out, as the model wrote it.

    Raises ValueError for a number with thousands of digits.
    """
    text = compact_json(answer)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(answer, separators=(",", ":"))
    return text


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON number")
