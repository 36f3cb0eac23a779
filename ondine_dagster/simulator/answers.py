"""What the simulated model answers. Pure: the same messages and schema give the same text.

Owns the walk through a JSON schema and the choice between its two authors: one that reads the last
user message and picks plausible values, and one for tests that derives every value from a token in
that message, `[[token=XYZ]]`, so that an answer that reaches the wrong row shows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ondine_dagster.simulator.chat import ChatRequest, last_user_text
from ondine_dagster.simulator.packs import Pack, Schema
from ondine_dagster.simulator.reading import Reading

_TOKEN = re.compile(r"\[\[token=([^\]]+)\]\]")
_MARKER = re.compile(r"\[\[(?:token|fault)=.*?\]\]")
_SHOWN = 80
_DEFAULT_SPAN = 10
_MAX_DEPTH = 12
_COMPLAINTS = ("complaint", "problem", "issue", "refund", "urgent", "negative", "defect", "churn")


class _Author(Protocol):
    """Whoever fills in the leaves of a schema."""

    def text(self) -> str: ...
    def choice(self, options: Sequence[Any]) -> Any: ...
    def integer(self, low: int, high: int) -> int: ...
    def number(self, low: float, high: float) -> float: ...
    def boolean(self, name: str) -> bool: ...


def answer(
    messages: Sequence[Mapping[str, Any]], schema: Schema | None, pack: Pack | None = None
) -> str:
    """Return the model's answer: JSON that fits `schema`, or plain text without one.

    `pack`: the last user message asks about many items, and each is answered by itself.

    With a token XYZ in the last user message, strings are XYZ, an enum of n values gives number
    h % n, integers are minimum + h % span, booleans h % 2 == 1, where h is sha256(XYZ) as an
    integer; bounds that are absent count as 0 and minimum + 10.
    """
    if pack is not None:
        answers = [
            _value(pack.schema, schema or {}, "", _author(text), 0) for _, text in pack.items
        ]
        return pack.written(answers)
    author = _author(last_user_text(messages))
    if schema is None:
        return author.text()
    return json.dumps(_value(schema, schema, "", author, 0), ensure_ascii=False)


def rows_asked(request: ChatRequest) -> tuple[str, ...]:
    """Return the rows that a request asks about: each one's token, or how its text begins."""
    if request.pack is None:
        texts = [last_user_text(request.messages)]
    else:
        texts = [text for _, text in request.pack.items]
    return tuple(token[1] if (token := _TOKEN.search(text)) else text[:_SHOWN] for text in texts)


def _author(text: str) -> _Author:
    token = _TOKEN.search(text)
    return _TokenAuthor(token[1]) if token else _ReadingAuthor(_MARKER.sub("", text))


def _value(schema: Schema, root: Schema, name: str, author: _Author, depth: int) -> Any:
    """Return a value for `schema`; unknown kinds become text, recursion ends in null."""
    schema = _resolved(schema, root)
    if depth > _MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if options := [option for option in schema.get("enum", ()) if option is not None]:
        return author.choice(options)
    kind = _kind(schema)
    if kind == "object":
        properties = schema.get("properties", {})
        return {k: _value(part, root, k, author, depth + 1) for k, part in properties.items()}
    if kind == "array":
        item = schema.get("items", {})
        return [_value(item, root, name, author, depth + 1)] * max(1, schema.get("minItems", 1))
    return _leaf(kind, schema, name, author)


def _leaf(kind: str, schema: Schema, name: str, author: _Author) -> Any:
    low, high = _bounds(schema)
    if kind == "integer":
        return author.integer(-int(-low // 1), int(high // 1))
    if kind == "number":
        return author.number(low, high)
    if kind == "boolean":
        return author.boolean(name)
    if kind == "null":
        return None
    return author.text()[: schema.get("maxLength")]


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow local references and take the first branch that is not null."""
    for _ in range(_MAX_DEPTH):
        if "$ref" in schema:
            schema = _referenced(str(schema["$ref"]), root)
            continue
        branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if not branches:
            break
        schema = next((b for b in branches if b.get("type") != "null"), branches[0])
    return schema


def _referenced(reference: str, root: Schema) -> Schema:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found.get(step, {})
    return found if isinstance(found, Mapping) else {}


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    return str(kind)


def _bounds(schema: Schema) -> tuple[float, float]:
    low = schema.get("minimum")
    high = schema.get("maximum")
    if low is None:
        low = 0 if high is None or high >= 0 else high - _DEFAULT_SPAN
    return low, low + _DEFAULT_SPAN if high is None else high


class _TokenAuthor:
    """Derives every value from one token."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._hash = int.from_bytes(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())

    def text(self) -> str:
        return self._token

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self._hash % len(options)]

    def integer(self, low: int, high: int) -> int:
        return low + self._hash % max(1, high - low + 1)

    def number(self, low: float, high: float) -> float:
        return low + (self._hash % 1001) / 1000 * (high - low)

    def boolean(self, name: str) -> bool:
        return self._hash % 2 == 1


class _ReadingAuthor:
    """Picks values that a reader of the text finds plausible."""

    def __init__(self, text: str) -> None:
        self._reading = Reading(text)

    def text(self) -> str:
        return self._reading.summary()

    def choice(self, options: Sequence[Any]) -> Any:
        if all(isinstance(option, str) for option in options):
            return self._reading.choose(options)
        return sorted(options, key=_size)[self.integer(0, len(options) - 1)]

    def integer(self, low: int, high: int) -> int:
        return round(self.number(low, high))

    def number(self, low: float, high: float) -> float:
        return low + (self._reading.mood + 1) / 2 * (high - low)

    def boolean(self, name: str) -> bool:
        complaint = any(word in name.lower() for word in _COMPLAINTS)
        return (self._reading.mood < 0) == complaint


def _size(option: Any) -> tuple[bool, float, str]:
    number = isinstance(option, (int, float))
    return number, float(option) if number else 0.0, str(option)
