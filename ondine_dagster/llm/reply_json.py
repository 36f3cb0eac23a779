"""Reads the JSON of a 200 reply, whoever it is from: strictly, and what is broken all the same.

Owns the repair of broken characters, and which values in a reply are none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic_core import from_json

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prices import picodollars
from ondine_dagster.llm.provider import Completion, Verdict
from ondine_dagster.llm.repair import CHARACTERS_REPLACED

_MOST_TOKENS = 10**9
_MOST_USD = 10**6  # of one answer; above it is nonsense


def load_reply(body: bytes) -> tuple[dict[str, Any], list[str]] | Completion:
    """Return the object that a body is, with flags for its oddities; else what it is instead."""
    flags: list[str] = []
    try:
        reply = _load(body)
    except _Repaired as found:
        reply, flags = found.reply, [CHARACTERS_REPLACED]
    except (ValueError, RecursionError) as error:
        not_finite = isinstance(error, _NotFinite)
        code = ErrorCode.REPLY_NOT_FINITE if not_finite else ErrorCode.REPLY_NOT_JSON
        return Completion(Verdict.INVALID, body.decode("utf-8", "replace"), code)
    if not isinstance(reply, dict):
        text = body.decode("utf-8", "replace")
        return Completion(Verdict.INVALID, text, ErrorCode.REPLY_NOT_OBJECT)
    return reply, flags


def as_object(value: object) -> Mapping[str, Any]:
    """Return a JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str | None:
    """Return text, None for anything else."""
    return value if isinstance(value, str) else None


def as_count(value: object) -> int | None:
    """Return a token count; what is not a whole number of zero or more is unknown.

    So is nonsense: its price would not fit the ledger's integers.
    """
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def as_money(value: Any) -> int | None:
    """Return USD as picodollars; what is no amount is unknown, which is not 0."""
    if type(value) not in (int, float) or not 0 <= value <= _MOST_USD:
        return None
    return picodollars(Decimal(str(value)))  # the digits that were sent, no binary fraction


class _NotFinite(ValueError):
    """NaN or Infinity in a reply: no JSON, though many parsers take it."""


class _Repaired(ValueError):
    """A reply with half a surrogate pair or bad UTF-8; `reply` has U+FFFD in its place."""

    def __init__(self, reply: Any) -> None:
        super().__init__("characters replaced")
        self.reply = reply


def _load(body: bytes) -> Any:
    """Parse strictly and fast; look closer only where that fails."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        pass
    parsed = json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse_constant)
    raise _Repaired(without_surrogates(parsed))


def _refuse_constant(name: str) -> Any:
    raise _NotFinite(name)


def without_surrogates(value: Any) -> Any:
    """Return JSON `value` with every lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    return value
