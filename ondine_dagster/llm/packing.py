"""Many rows in one request: their questions in one message, their answers told apart again. Pure.

Owns the codes by which rows are known in a pack, the JSON schema of its answer, and `Packing`, what
a format of packs is. Nothing here goes by position: an item counts only under a code that was
given, and codes are random, so that a model that numbers its items anew answers none of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ondine_dagster.llm.provider import Schema
from ondine_dagster.llm.static_text import StaticText

# no vowels, so that no code is a word; no digits, so that none is a number
_LETTERS = "bcdfghjkmnpqrstvwxz"
_SHORTEST = {"integer": 0, "number": 0, "boolean": True, "array": [], "object": {}}
_START_OF_MESSAGE, _END_OF_USER = '{"content":', ',"role":"user"}]'


class ItemProblem(StrEnum):
    """Why a row of a pack has no answer of its own, though the request has one."""

    MISSING = "missing"
    CUT_OFF = "cut_off"  # the answer ended before it, or within it
    REPEATED = "repeated"  # two answers under one code: nobody knows which is the row's
    MALFORMED = "malformed"  # an item of another shape than asked for
    UNKNOWN_CODE = "unknown_code"  # missing, while there are items under codes that nobody gave


@dataclass(frozen=True, slots=True)
class Split:
    """What became of each row of a pack: each code that was given is in one of the two.

    `answers` are the texts that requests for single rows would have brought. `unknown` counts the
    items under codes that nobody gave.
    """

    answers: Mapping[str, str]
    problems: Mapping[str, ItemProblem]
    unknown: int = 0


class Outcomes:
    """Collects what an answer holds under which code; the same rules for every format."""

    def __init__(self, codes: Sequence[str], *, cut: bool) -> None:
        """`cut`: the answer ended at its ceiling."""
        self._codes = dict.fromkeys(codes)
        self._cut = cut
        self._answers: dict[str, str] = {}
        self._problems: dict[str, ItemProblem] = {}
        self._unknown = 0

    def asks(self, code: str) -> bool:
        """Return whether the code is one that was given."""
        return code in self._codes

    def add(self, code: str, answer: str | None, *, broken: bool) -> None:
        """Take an item in: its row's answer, or none; `broken`: it could not be read."""
        if code not in self._codes:
            self._unknown += 1
        elif code in self._answers or code in self._problems:
            self._answers.pop(code, None)
            self._problems[code] = ItemProblem.REPEATED
        elif answer is not None:
            self._answers[code] = answer
        else:
            lost = self._cut and broken
            self._problems[code] = ItemProblem.CUT_OFF if lost else ItemProblem.MALFORMED

    def split(self) -> Split:
        """Return what became of each row, those without an item among them."""
        missing = ItemProblem.UNKNOWN_CODE if self._unknown else ItemProblem.MISSING
        for code in self._codes:
            if code not in self._answers:
                self._problems.setdefault(code, ItemProblem.CUT_OFF if self._cut else missing)
        return Split(self._answers, self._problems, self._unknown)


class Packing(Protocol):
    """A format of packs: how several rows are asked in one message, and their answers told apart.

    `schema` is the wire schema of the answer to a pack, None where it is plain text: a provider for
    packs is built with it. `empty` is the text of a row that has nothing of its own;
    `answer_bytes` is how much longer the answer to a row is in a pack than alone, in bytes, which
    may be less than nothing.
    """

    empty: str
    answer_bytes: int

    @property
    def schema(self) -> Schema | None:
        """Return the wire schema of the answer to a pack."""

    def compose(self, prefix: str, items: Sequence[tuple[str, str]]) -> str:
        """Return the messages of a pack as canonical JSON.

        `prefix` is what its rows have in common, see `PackableMessages`; `items` are the code and
        the user's text of each row.
        """

    def split(self, text: str, codes: Sequence[str], *, cut: bool) -> Split:
        """Return the answer of each row; `cut`: the text ended at the ceiling. Never raises."""


@dataclass(frozen=True, slots=True)
class PackableMessages:
    """The messages of a row, in the part that a pack sends once and the row's own text.

    Only rows of equal `prefix` go into one pack: canonical JSON of all messages but the last, from
    the opening bracket to the comma before the last message.
    """

    prefix: str
    text: str


def packable(messages_json: str) -> PackableMessages | None:
    """Return canonical JSON of a row's messages in two parts; None where they go alone.

    Rows with attachments do: an image stands beside a message, not in its text.
    """
    # text in a JSON string has no bare quotes, so these are found in the structure only
    if '"attachments":' in messages_json or not messages_json.endswith(_END_OF_USER):
        return None
    start = messages_json.rindex(_START_OF_MESSAGE)
    content = messages_json[start + len(_START_OF_MESSAGE) : -len(_END_OF_USER)]
    return PackableMessages(messages_json[:start], json.loads(content))


def nullable(schema: Schema) -> bool:
    """Return whether a value of a wire schema may be null, and so may be left out."""
    kind = schema.get("type")
    return isinstance(kind, list) and "null" in kind


def shortest_answer(schema: Schema) -> dict[str, Any]:
    """Return an answer that fits a wire schema as far as its form goes, with nothing in it."""
    return {name: _SHORTEST.get(kind_of(part), "") for name, part in schema["properties"].items()}


def kind_of(schema: Schema) -> str:
    """Return the type of a value of a wire schema, that of values which are not null."""
    told = schema.get("type")
    kinds = told if isinstance(told, list) else [told]
    return str(next((one for one in kinds if one != "null"), None))


def shared_ends(static: StaticText, texts: Sequence[str]) -> tuple[str, str]:
    """Return what all texts begin and end with, as the template has it or nothing at all."""
    head, tail = static.head, static.tail
    shared = len(head) + len(tail)
    if all(len(text) >= shared and text.startswith(head) and text.endswith(tail) for text in texts):
        return head, tail
    return "", ""


def new_codes(count: int, source: random.Random | None = None) -> list[str]:
    """Return `count` codes for the rows of one pack: short, random, all different."""
    length = 3
    while len(_LETTERS) ** length < 100 * count:  # a code that a model makes up is hardly one
        length += 1
    numbers = (source or random).sample(range(len(_LETTERS) ** length), count)
    return [_code(number, length) for number in numbers]


def _code(number: int, length: int) -> str:
    letters = ""
    for _ in range(length):
        number, place = divmod(number, len(_LETTERS))
        letters += _LETTERS[place]
    return letters


def user_message(prefix: str, text: str) -> str:
    """Return canonical JSON of the messages `prefix` and one of the user after them."""
    content = json.dumps(text, ensure_ascii=False)
    return f"{prefix}{_START_OF_MESSAGE}{content}{_END_OF_USER}"
