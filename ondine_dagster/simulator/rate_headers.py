"""How providers tell of their rate limits in headers. Pure.

Owns the dialects: the names of the headers and the notation of a reset in each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ondine_dagster.simulator.wire import Header

RateHeaders = Literal["openai", "groq", "anthropic", "openrouter"]


@dataclass(frozen=True, slots=True)
class WindowState:
    """One limit at one instant: its size, what is left, the seconds until all of it is back."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class Windows:
    """The limits that a provider has at one instant; None where it has no such limit."""

    now: float
    requests: WindowState | None
    tokens: WindowState | None
    day: WindowState | None


def reply_headers(dialect: RateHeaders | None, windows: Windows) -> list[Header]:
    """Return the headers of any reply.

    Groq tells of the requests per day, the others of those per minute. OpenRouter tells nothing on
    a reply to an admitted request.
    """
    if dialect == "anthropic":
        return list(_anthropic(windows))
    if dialect == "openai":
        return list(_openai(windows.requests, windows.tokens))
    if dialect == "groq":
        return list(_openai(windows.day, windows.tokens))
    return []


def openrouter_headers(limit: int, resets_at: float) -> list[Header]:
    """Return what OpenRouter says on its own 429 only; the reset in milliseconds since 1970."""
    reset = math.ceil(resets_at * 1000)
    values = {"X-RateLimit-Limit": limit, "X-RateLimit-Remaining": 0, "X-RateLimit-Reset": reset}
    return [_header(name, str(value)) for name, value in values.items()]


def go_duration(seconds: float) -> str:
    """Return `seconds`, rounded up to a millisecond, as Go writes it: 12ms, 7.66s, 6m0s, 1h0m0s."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _openai(requests: WindowState | None, tokens: WindowState | None) -> Iterator[Header]:
    for name, window in (("requests", requests), ("tokens", tokens)):
        if window is not None:
            yield _header(f"x-ratelimit-limit-{name}", str(window.limit))
            yield _header(f"x-ratelimit-remaining-{name}", str(window.remaining))
            yield _header(f"x-ratelimit-reset-{name}", go_duration(window.reset_seconds))


def _anthropic(windows: Windows) -> Iterator[Header]:
    for name, window in (("requests", windows.requests), ("tokens", windows.tokens)):
        if window is not None:
            reset = datetime.fromtimestamp(math.ceil(windows.now + window.reset_seconds), UTC)
            yield _header(f"anthropic-ratelimit-{name}-limit", str(window.limit))
            yield _header(f"anthropic-ratelimit-{name}-remaining", str(window.remaining))
            yield _header(f"anthropic-ratelimit-{name}-reset", f"{reset:%Y-%m-%dT%H:%M:%SZ}")


def _header(name: str, value: str) -> Header:
    return name.encode("ascii"), value.encode("ascii")
