"""Sends the traces of a step beside it: what waits in the outbox, with its prompts from the lake.

Owns how long a run waits for a trace host, and what people see of it: a warning, the id of each
partition's trace and the way to its page. Whatever the host does, the step ends as it would.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Self

import dagster as dg

from ondine_dagster.assets.rows.redaction import scrub_as_noted
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.engine.garbage import seldom_collected
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.tracing import trace_id
from ondine_dagster.observe.destination import Destination
from ondine_dagster.observe.otlp import Answer, OtlpHttp
from ondine_dagster.observe.patience import Patience, Watched
from ondine_dagster.observe.push import Pushed, Pusher, SecondsLeft, Wanted
from ondine_dagster.observe.spans import Scrub
from ondine_dagster.privacy.scrubbing import scrubber
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

_PROMPTS = "prompts"
_COLUMNS = ["_row_key", "answer_key", "messages"]
# seldom: while the engine works, this thread takes the interpreter from it
_EVERY_SECONDS = 30.0
_AFTER_TROUBLE_SECONDS = 60.0
# a post beside the step takes no longer, so that the end of the step need not wait for it
_POST_SECONDS = 3.0
# what a run waits at its end for a host that is down or slow
END_SECONDS = 5.0
_JOIN_SECONDS = 0.1
_COMMAND = "ondine-dagster traces push"


def push(
    database: Database,
    lake: Lake,
    destination: Destination,
    left: SecondsLeft = lambda: math.inf,
    *,
    roots: bool = True,
    told: Callable[[Answer, float], None] = lambda answer, seconds: None,
) -> Pushed:
    """Send what waits in the ledger; see `Pusher.push`. `told`: of each post, and its seconds."""
    with OtlpHttp(destination) as exporter, seldom_collected():
        scrubber_of = lru_cache(partial(_scrubber_of, lake))
        watched = Watched(exporter, told)
        pusher = Pusher(database, destination, _messages_in(lake), scrubber_of, watched)
        return pusher.push(left, roots=roots)


def _scrubber_of(lake: Lake, dataset: str) -> Scrub:
    """Return what is done to texts of a dataset before they leave, as its last prompts note it.

    It remembers the last few: the system message, which is the same for every row.
    """
    try:
        partitions = lake.partitions(dataset, _PROMPTS)
        last = max(partitions, key=lambda one: lake.path(dataset, _PROMPTS, one).stat().st_mtime_ns)
        scrub = scrub_as_noted(lake.metadata(dataset, _PROMPTS, last))
    except (OndineError, OSError, ValueError):  # there are none, or they went away
        scrub = scrubber()
    return lru_cache(maxsize=64)(scrub)


def _messages_in(lake: Lake) -> Callable[[str, str | None, Wanted], Mapping[str, str]]:
    """Return what finds the messages that were sent for rows, in the partitions' prompts.

    They are known where the prompts are those of the request's answer key, or older than the
    request: a fallback is asked the same under another key.
    """

    def find(dataset: str, partition: str | None, wanted: Wanted) -> Mapping[str, str]:
        try:
            return _find(lake, dataset, partition, wanted)
        except (OndineError, OSError):  # the file went away, or is damaged: traces go without it
            return {}

    return find


def _find(lake: Lake, dataset: str, partition: str | None, wanted: Wanted) -> Mapping[str, str]:
    written_ms = lake.path(dataset, _PROMPTS, partition).stat().st_mtime_ns // 1_000_000
    found: dict[str, str] = {}
    with closing(lake.open(dataset, _PROMPTS, partition)) as file:
        for rows in file.iter_batches(5000, _COLUMNS, wanted):
            for row_key, answer_key, messages in zip(
                *(column.to_pylist() for column in rows.columns), strict=True
            ):
                asked, sent_ms = wanted[row_key]
                if messages is not None and (answer_key == asked or written_ms <= sent_ms):
                    found[row_key] = messages
    return found


class Tracing:
    """Sends traces in a thread of its own until the block ends, and then what is left.

    It waits no more than a few seconds for a slow host, and never longer than the block took.
    An error of the host or of the ledger is a warning. A bug of ours is raised at the end.
    """

    def __init__(
        self,
        database: Database,
        lake: Lake,
        destination: Destination,
        warn: Callable[[str], object],
    ) -> None:
        self._database = database
        self._lake = lake
        self._destination = destination
        self._warn = warn
        self._end = threading.Event()
        self._began = time.monotonic()
        self._patience: Patience | None = None  # before the end nobody waits
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = error is not None and not isinstance(error, Exception)
        seconds = 0.0 if interrupted else END_SECONDS
        took = time.monotonic() - self._began
        self._patience = patience = Patience(seconds, 0.0 if interrupted else took)
        self._end.set()
        while not interrupted and self._thread.is_alive() and patience() > -1:
            self._thread.join(_JOIN_SECONDS)
        if self._bug is not None and error is None:
            raise self._bug

    def _run(self) -> None:
        try:
            pause = _EVERY_SECONDS
            while not self._end.wait(pause):
                pushed = self._push(lambda: min(_POST_SECONDS, self._left()), roots=False)
                pause = _AFTER_TROUBLE_SECONDS if pushed.trouble else _EVERY_SECONDS
            pushed = self._push(self._left, roots=True)
            if pushed.trouble:
                self._warn(_sentence(pushed))
        except (OndineError, OSError) as error:
            self._warn(f"Traces could not be sent: {error} Send them later: {_COMMAND}")
        except Exception as error:  # noqa: BLE001 (raised where the step ends)
            self._bug = error

    def _push(self, left: SecondsLeft, *, roots: bool) -> Pushed:
        place = (self._database, self._lake, self._destination)
        return push(*place, left, roots=roots, told=self._told)

    def _told(self, answer: Answer, seconds: float) -> None:
        if self._patience is not None:
            self._patience.answered(answer, seconds)

    def _left(self) -> float:
        return math.inf if self._patience is None else self._patience()


def _sentence(pushed: Pushed) -> str:
    return (
        f"Traces: {pushed.trouble}. {plural(pushed.waiting, 'request')} waiting to be sent; "
        f"nothing is lost. Send them later: {_COMMAND}"
    )


def trace_metadata(destination: Destination, run_id: str, dataset: str, partition: str) -> Metadata:
    """Return the id of a partition's trace in this run, and the way to its page."""
    trace = trace_id(run_id, dataset, partition).hex()
    link = destination.link_to(trace)
    return {"trace_id": trace} | ({"trace": dg.MetadataValue.url(link)} if link else {})


def push_in_ledger(
    ledger_path: Path, lake: Lake, destination: Destination, seconds: float
) -> Pushed:
    """Send what waits in a ledger that no run of this process has open, for some seconds."""
    until = time.monotonic() + seconds
    with closing(Database(ledger_path)) as database:
        return push(database, lake, destination, lambda: until - time.monotonic())
