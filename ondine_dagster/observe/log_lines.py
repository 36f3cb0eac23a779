"""Lines of a log: what an event reads like, and a record as one line of JSON.

Every line about a row names run, dataset, partition, row key and attempt, for programs in fields of
their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ondine_dagster.engine.events import AttemptEnded, Event, RequestSent, RowEnded

# the attribute of a log record that holds the fields of a line
FIELDS = "ondine"
OK, SKIPPED = "ok", "skipped"
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its level (of `logging`), its text, and the same for programs."""

    level: int
    text: str
    fields: Fields


def lines_of(event: Event, scrub: Callable[[str], str] = lambda text: text) -> Iterator[Line]:
    """Yield what is logged of an event that is about rows: a line for each of them.

    `scrub` is done to what may hold parts of a row, its key as well.
    """
    if isinstance(event, RequestSent):
        for row in event.rows:
            sent = {"request": event.request, "model": event.model}
            key = scrub(row.row_key)
            yield _line(logging.DEBUG, event, key, row.attempt, "sent", "sent", sent)
    elif isinstance(event, AttemptEnded):
        text, fields = _attempt(event, scrub)
        for row in event.rows:
            key = scrub(row.row_key)
            yield _line(logging.DEBUG, event, key, row.attempt, "attempt_ended", text, fields)
    elif isinstance(event, RowEnded):
        good = event.outcome in (OK, SKIPPED)
        message = scrub(event.message or "")
        why = "" if good else f": {event.code}{': ' * bool(message)}{message}"
        yield _line(
            logging.DEBUG if good else logging.INFO,
            event,
            scrub(event.row_key),
            event.attempt,
            "row_ended",
            f"{event.outcome}{why}",
            {
                "outcome": event.outcome,
                "cost_usd": float(event.cost_usd),
                **_problem(event, message),
            },
        )


def _attempt(event: AttemptEnded, scrub: Callable[[str], str]) -> tuple[str, Fields]:
    took = "" if event.latency_ms is None else f" after {event.latency_ms} ms"
    message = scrub(event.message or "")
    fields = {
        "request": event.request,
        "model": event.model,
        "state": event.state,
        "latency_ms": event.latency_ms,
        "rows_in_request": len(event.rows),
        "request_cost_usd": None if event.cost_usd is None else float(event.cost_usd),
        **_problem(event, message),
    }
    if event.code is None:
        return f"answered{took}", fields
    return f"{event.code}{took}{': ' * bool(message)}{message}", fields


def _problem(event: AttemptEnded | RowEnded, message: str) -> Fields:
    if event.code is None:
        return {}
    return {"error_class": event.error_class, "code": event.code, "error": message or None}


def _line(
    level: int,
    event: RequestSent | AttemptEnded | RowEnded,
    row_key: str,
    attempt: int,
    name: str,
    text: str,
    more: Fields,
) -> Line:
    fields = {
        "event": name,
        "run_id": event.run_id,
        "dataset": event.dataset,
        "partition": event.partition,
        "row_key": row_key,
        "attempt": attempt,
        "at": _time(event.at_ms / 1000),
        **more,
    }
    place = f"{event.dataset} {event.partition}, row {row_key}"
    if attempt:  # else its answer was paid for by an earlier run
        place = f"{place}, attempt {attempt}"
    return Line(level, f"{place}: {text}", fields)


class JsonFormatter(logging.Formatter):
    """Makes a record one line of JSON. Dagster can be given it as well (`python_logs`)."""

    def __init__(self, **common: str) -> None:
        """`common` are fields of every line."""
        super().__init__()
        self._common = common

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break."""
        dagster = getattr(record, "dagster_meta", None) or {}
        line = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "message": dagster.get("orig_message") or record.getMessage(),
            "logger": record.name,
            **{name: dagster[name] for name in ("run_id", "step_key") if dagster.get(name)},
            **self._common,
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
