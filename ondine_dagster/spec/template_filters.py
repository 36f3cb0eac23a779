"""The filters that a prompt has beside Jinja's own: pure, and the same result every time.

NULL stays NULL, which renders as nothing, except in `json`, where it is `null`. What a filter does
not take is an error of the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from ondine_dagster.spec.tokens import MARKER, truncated


def as_json(value: Any) -> str:
    """Return compact JSON, non-Latin text as text; dates in ISO 8601, exact numbers as text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def from_json(value: str | None) -> Any:
    """Return what a text in JSON holds, so that `.name` and `[0]` reach into it."""
    return None if value is None else json.loads(value)


def as_date(value: Any, form: str = "%Y-%m-%d") -> str | None:
    """Return a date or time as `form` says; a text must be in ISO 8601."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is no date in ISO 8601, such as 2026-01-31") from None
    if not isinstance(value, (date, time)):
        raise TypeError(f"{value!r} is no date")
    return value.strftime(form)


def truncate_tokens(value: Any, tokens: int, marker: str = MARKER) -> str | None:
    """Return the beginning of a text, and `marker` where there was more: about `tokens` in all."""
    return None if value is None else truncated(str(value), tokens, marker)


def _plain(value: Any) -> Any:
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "json": as_json,
    "from_json": from_json,
    "date": as_date,
    "truncate_tokens": truncate_tokens,
}
# What differs from one rendering to the next: each would be another question, and be paid.
NOT_REPEATABLE = ("random", "lipsum")
