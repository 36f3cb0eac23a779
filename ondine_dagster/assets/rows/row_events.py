"""The last events of a row, as its columns `events` and `_events` hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ondine_dagster.engine.job import MOST_EVENTS
from ondine_dagster.engine.rows import RowEvent, RowOutcome


def event_rows(events: Sequence[RowEvent]) -> list[dict[str, Any]] | None:
    """Return what a column holds; NULL where nothing happened, which is true of most rows."""
    return [_row(one) for one in events] or None


def events_of(rows: Sequence[Mapping[str, Any]] | None) -> tuple[RowEvent, ...]:
    """Return what a column holds as events."""
    return tuple(
        RowEvent(round(row["at"].timestamp() * 1000), *(row[name] for name in _NAMES))
        for row in rows or ()
    )


def life_of(row: RowOutcome) -> tuple[RowEvent, ...]:
    """Return the last events of a row that has no result, its answer among them.

    Nothing is written down while rows are good: that an answer came is known from its request.
    """
    each = row.samples or (row,)
    events = [event for one in each for event in (*one.events, *_answer(one))]
    return tuple(sorted(events, key=lambda one: one.at_ms)[-MOST_EVENTS:])


def _answer(row: RowOutcome) -> list[RowEvent]:
    if row.text is None or row.attempt is None or any(one.event == "no_use" for one in row.events):
        return []
    sent_ms = int.from_bytes(row.attempt[:6], "big")  # ids begin with the time: ledger/identity.py
    if row.cost_source == "reused":
        return [RowEvent(sent_ms, "answered_before", 0)]
    at_ms = sent_ms + (row.latency_ms or 0)
    return [RowEvent(at_ms, "answered", row.attempts, latency_ms=row.latency_ms)]


def _row(event: RowEvent) -> dict[str, Any]:
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC)
    return {"at": at, **{name: getattr(event, name) for name in _NAMES}}


_NAMES = ("event", "attempt", "code", "message", "latency_ms")
