"""What all stages have in common while they run: failures that read well, and how they are logged.

The level of the log is that of the run's tag `ondine/log_level`, else of ONDINE_LOG_LEVEL; with
ONDINE_LOG_FORMAT=json every line is on standard error as JSON, too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from ondine_dagster.assets.shared.events import readable_failures
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.scrubbed_errors import scrubbed_errors
from ondine_dagster.errors import OndineError
from ondine_dagster.observe.log_lines import FIELDS, JsonFormatter, Line
from ondine_dagster.observe.relay import END_SECONDS, Relay
from ondine_dagster.settings import LOG_FORMAT, LOG_LEVEL, Settings

LOG_LEVEL_TAG = "ondine/log_level"
# of a record: its line went to standard error by itself, as Dagster's log is slower
WRITTEN = "ondine_written"
WriteLine = Callable[[Line], None]
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PACKAGE = "ondine_dagster"
_ROWS = f"{_PACKAGE}.rows"
# what an interrupted run waits for lines that are on their way
_INTERRUPTED_SECONDS = 0.5


@contextmanager
def stage(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Iterator[WriteLine | None]:
    """Run a stage within the block. Raises dg.Failure where a person can mend what is wrong.

    What other exceptions say is scrubbed. Yields what writes a line to standard error at once, None
    where lines are not JSON.
    """
    with readable_failures(), scrubbed_errors(pipeline.scrub):
        settings = pipeline.settings()
        level = asked_level(settings, context.run.tags)
        if level is not None:
            context.log.setLevel(level)  # Dagster's own events are logged whatever the level
        fields = {"run_id": context.run.run_id, "dataset": pipeline.name}
        if not wants_json(settings):
            yield None
            return
        with _as_json(context.log, fields, level or logging.INFO) as write:
            yield write


def asked_level(settings: Settings, tags: Mapping[str, str]) -> int | None:
    """Return the level that somebody asked for, None where nobody did.

    Raises OndineError for a word that is no level.
    """
    asked, where = tags.get(LOG_LEVEL_TAG), f"the tag {LOG_LEVEL_TAG}"
    if asked is None:
        asked, where = settings.variable(LOG_LEVEL), LOG_LEVEL
    if asked is None:
        return None
    if (level := _LEVELS.get(asked.lower())) is None:
        raise OndineError(f"{where} is {asked!r}; it must be one of {', '.join(_LEVELS)}.")
    return level


def wants_json(settings: Settings) -> bool:
    """Return whether lines are JSON. Raises OndineError for a format that does not exist."""
    asked = settings.variable(LOG_FORMAT) or "text"
    if asked not in ("text", "json"):
        raise OndineError(f"{LOG_FORMAT} is {asked!r}; it must be text or json.")
    return asked == "json"


@contextmanager
def _as_json(log: logging.Logger, fields: Mapping[str, str], level: int) -> Iterator[WriteLine]:
    """Write what `log` and the package log to standard error, as JSON, within the block."""
    relay = Relay[str](_write, "json log")
    handler = _Lines(relay, level)
    handler.setFormatter(JsonFormatter(**fields))

    def write(line: Line) -> None:
        record = logging.LogRecord(_ROWS, line.level, "", 0, line.text, None, None)
        setattr(record, FIELDS, line.fields)
        handler.handle(record)

    loggers = (log, logging.getLogger(_PACKAGE))
    for logger in loggers:
        logger.addHandler(handler)
    seconds = _INTERRUPTED_SECONDS
    try:
        yield write
        seconds = END_SECONDS
    except Exception:
        seconds = END_SECONDS
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        lost = relay.close(seconds)
        if missing := lost.dropped + lost.left + lost.errors:
            log.warning(f"{missing:,} lines of the log could not be written to standard error.")


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class _Lines(logging.Handler):
    """Hands lines on to who writes them, but for Dagster's own events and what is written."""

    def __init__(self, relay: Relay[str], level: int) -> None:
        super().__init__(level)
        self._relay = relay

    def emit(self, record: logging.LogRecord) -> None:
        event = (getattr(record, "dagster_meta", None) or {}).get("dagster_event")
        if event is None and not hasattr(record, WRITTEN):
            self._relay.put(self.format(record))
