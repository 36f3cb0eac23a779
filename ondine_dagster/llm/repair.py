"""Takes off an answer what is no part of it, where the declaration says so, and says what it took.

Nothing is ever completed: an answer that was cut off stays unreadable. Each repair that was needed
is noted as a flag, so that it is seen beside the row and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Never

from pydantic_core import from_json

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.rejection import reject
from ondine_dagster.spec import Repair

CHARACTERS_REPLACED = "characters_replaced"  # the flag of an answer with broken Unicode
REPAIRED = "repaired_"  # begins the flag of a repair
_END_OF_THOUGHTS = "</think>"
# a text in JSON, to its end where it has none; or a comma with nothing after it
_TRAILING_COMMA = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)|,(?=\s*[}\]])', re.DOTALL)


def read_json(text: str, repairs: Collection[Repair], flags: list[str]) -> Any:
    """Return the JSON value that `text` is, adding to `flags` what had to be repaired.

    Raises Rejected where it is none, and for NaN and Infinity, which are no JSON.
    """
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        problem = str(error)
    used: list[str] = []
    # what begins as an object is one, or nothing: what looks like thoughts may stand inside
    answer = text if text.lstrip().startswith("{") else unwrapped(text, repairs, used, ("json",))
    value = _read_carefully(answer, used)
    if value is _NOTHING and "trailing_commas" in repairs:
        value = _read_carefully(_without_trailing_commas(answer), used, "trailing_commas")
    if value is _NOTHING and "prose" in repairs:
        value = _inside_prose(answer, repairs, used)
    if value is _NOTHING:
        reject(ErrorCode.ANSWER_NOT_JSON, f"the answer is no JSON: {problem}")
    flags += used
    return value


def unwrapped(
    text: str, repairs: Collection[Repair], flags: list[str], languages: Sequence[str] = ()
) -> str:
    """Return an answer without the thoughts before it and the Markdown fence round all of it.

    `languages` are those that a fence may name; without any, all.
    """
    answer = text
    if "thoughts" in repairs and _END_OF_THOUGHTS in answer:
        answer = answer.rpartition(_END_OF_THOUGHTS)[2].strip()
        flags.append(f"{REPAIRED}thoughts")
    stripped = answer.strip()
    if "fences" not in repairs or not (stripped.startswith("```") and stripped.endswith("```")):
        return answer
    language, _, inside = stripped.removeprefix("```").removesuffix("```").partition("\n")
    named = language.strip().lower()
    if "```" in inside or (languages and named and named not in languages):
        return answer
    flags.append(f"{REPAIRED}fences")
    return inside.strip("\n")


class _Nothing:
    """No value: JSON has a null of its own."""


_NOTHING = _Nothing()


def _read_carefully(text: str, flags: list[str], repair: Repair | None = None) -> Any:
    """Tell NaN from other bad JSON, and let a lone surrogate pass (it is replaced later)."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _NOTHING
    _note_surrogates(text, flags)
    if repair is not None:
        flags.append(REPAIRED + repair)
    return value


def _note_surrogates(text: str, flags: list[str]) -> None:
    if "\\ud" not in text and "\\uD" not in text:
        return
    try:
        from_json(text)
    except ValueError:
        flags.append(CHARACTERS_REPLACED)


def _without_trailing_commas(text: str) -> str:
    return _TRAILING_COMMA.sub(lambda found: "" if found[0] == "," else found[0], text)


def _inside_prose(text: str, repairs: Collection[Repair], flags: list[str]) -> Any:
    """Return the one object that a text holds; none where there may be another one, or a list.

    The first brace must begin it: one further inside may be a part of an object that was cut off.
    """
    before, brace, _ = text.partition("{")
    if not brace or before.count("[") > before.count("]"):  # an item of a list that was cut off
        return _NOTHING
    rest, used = text[len(before) :], [f"{REPAIRED}prose"]
    value, after = _first_value(rest)
    if value is _NOTHING and "trailing_commas" in repairs:
        value, after = _first_value(_without_trailing_commas(rest))
        used.append(f"{REPAIRED}trailing_commas")
    if value is _NOTHING:
        return _NOTHING
    if "{" in after:
        reject(
            ErrorCode.ANSWER_NOT_JSON,
            "the answer holds several JSON objects among prose: which one is meant is not known",
        )
    if after.lstrip().startswith((",", "]", "}")):
        return _NOTHING
    _note_surrogates(rest[: len(rest) - len(after)], used)
    flags += used
    return value


def _first_value(text: str) -> tuple[Any, str]:
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return _NOTHING, ""
    return value, text[end:]


def _refuse_constant(name: str) -> Never:
    reject(ErrorCode.ANSWER_NOT_FINITE, f"the answer holds {name}, which is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
