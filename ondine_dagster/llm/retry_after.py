"""How long a provider asks us to wait: every form of Retry-After.

Forms: integer or decimal seconds, an HTTP date, and Azure's `retry-after-ms`
(https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). How much of it a run waits is decided
in `engine/retry.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the wait in seconds (never negative), or None where none can be read.

    `headers` has lower-case names. Milliseconds win over seconds, as they are finer.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = number(text)
    if seconds is not None:
        return max(0.0, seconds)
    return _until_date(text, now)


def number(text: str | None) -> float | None:
    """Return the number that a header value is, None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _until_date(text: str | None, now: datetime | None) -> float | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):  # garbage of every size
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
