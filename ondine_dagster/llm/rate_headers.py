"""Which of the provider's windows are used up, as its rate-limit headers tell.

Owns the three dialects (OpenAI with Azure and Groq, Anthropic, OpenRouter) and the forms of a
reset: Go duration, RFC 3339, epoch (seconds or milliseconds), plain seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from ondine_dagster.llm.retry_after import number

# (remaining, limit, reset) of each window
_WINDOWS = (
    *(
        tuple(f"x-ratelimit-{name}-{unit}" for name in ("remaining", "limit", "reset"))
        for unit in ("requests", "tokens")
    ),
    *(
        tuple(f"anthropic-ratelimit-{unit}-{name}" for name in ("remaining", "limit", "reset"))
        for unit in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
    ("x-ratelimit-remaining", "x-ratelimit-limit", "x-ratelimit-reset"),
)
_REMAINING = frozenset(remaining for remaining, _, _ in _WINDOWS)
_UNITS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,  # micro sign
    "\u03bcs": 1e-6,  # Greek mu
    "ns": 1e-9,
}
_STEP = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|\u00b5s|\u03bcs|ns)")
_DURATION = re.compile(rf"[-+]?(?:{_STEP.pattern})+")
# 1973 and later: nobody asks for a wait of three years
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e8, 1e11


def used_up_for(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds until every used-up window is renewed; None where none is used up.

    `headers` has lower-case names. A window is used up where nothing remains of a limit (a limit of
    0 or -1 is Azure's for "not known") and the reset can be read and lies ahead. Where a window
    fills up steadily, its reset is the moment at which it is full: none of it is lost by waiting.
    """
    if _REMAINING.isdisjoint(headers):  # runs for every reply
        return None
    waits = [wait for reset in _used_up(headers) if (wait := _until(reset, now))]
    return max(waits, default=None)


def _used_up(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the resets of the windows of which nothing remains."""
    for remaining, limit, reset in _WINDOWS:
        if remaining in headers and reset in headers and number(headers[remaining]) == 0:
            declared = number(headers.get(limit))
            if declared is None or declared > 0:
                yield headers[reset]


def _until(reset: str, now: datetime | None) -> float | None:
    """Return the seconds until `reset`, 0 where it has passed, None where it cannot be read."""
    text = reset.strip()
    seconds = number(text)
    if seconds is None:
        seconds = _duration(text)
    elif seconds >= _EPOCH_SECONDS:
        moment = seconds / 1000 if seconds >= _EPOCH_MILLISECONDS else seconds
        seconds = moment - (now or datetime.now(UTC)).timestamp()
    if seconds is None:
        seconds = _until_moment(text, now)
    return None if seconds is None else max(0.0, seconds)


def _duration(text: str) -> float | None:
    """Return the seconds of a Go duration such as `1m30.5s`."""
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(float(count) * _UNITS[unit] for count, unit in _STEP.findall(text))
    if not math.isfinite(seconds):
        return None
    return -seconds if text.startswith("-") else seconds


def _until_moment(text: str, now: datetime | None) -> float | None:
    """Return the seconds until an RFC 3339 instant."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - (now or datetime.now(UTC))).total_seconds()
