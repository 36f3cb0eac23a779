"""The ledger's clock: UTC, milliseconds since the epoch."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now_us() -> int:
    """Return the time in microseconds since the epoch: rates are finer than milliseconds."""
    return time.time_ns() // 1_000


def utc_day(moment_ms: int) -> str:
    """Return the UTC day of a moment as YYYY-MM-DD."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).date().isoformat()
