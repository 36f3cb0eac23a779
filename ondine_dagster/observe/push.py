"""Sends what waits in the outbox: in order, in small posts, each marked when the host has taken it.

Whatever happens to this process or to the host, nothing is lost: what was not confirmed waits, and
what is sent twice has the same ids. One process pushes at a time.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from ondine_dagster.ledger.database import Database, open_private
from ondine_dagster.ledger.tracing import share
from ondine_dagster.observe import outbox
from ondine_dagster.observe.destination import Destination
from ondine_dagster.observe.genai import GenAiVocabulary
from ondine_dagster.observe.langfuse import LangfuseVocabulary
from ondine_dagster.observe.otlp import Answer, Delivered, Refused, Unavailable
from ondine_dagster.observe.requests import AskedRow, Request, Root
from ondine_dagster.observe.scrubbing import scrubbed_messages
from ondine_dagster.observe.spans import (
    Row,
    Scrub,
    Span,
    Vocabulary,
    request_spans,
    root_span,
)

# what is read at once: many rows of one partition, whose prompts are then read once
_WINDOW_REQUESTS, _WINDOW_BYTES = 4096, 16 * 2**20
# what is posted at once, and marked by one transaction
_POST_SPANS, _POST_BYTES = 500, 3 * 2**20
_POST_SECONDS = 10.0
_FIRST_WAIT_SECONDS, _WAITS = 1.0, 5
_LOCK_POLL_SECONDS = 0.05

# what was sent for rows: (dataset, partition, rows by key with answer key and time) -> JSON by key
Wanted = Mapping[str, tuple[bytes, int]]
MessagesOf = Callable[[str, str | None, Wanted], Mapping[str, str]]
ScrubberOf = Callable[[str], Scrub]  # by dataset
SecondsLeft = Callable[[], float]
_Asked = tuple[Request, list[AskedRow]]


class Exporter(Protocol):
    """Takes spans somewhere."""

    def post(self, spans: Sequence[Span], seconds: float) -> Answer:
        """Send spans; return what became of them, within about `seconds`."""
        ...


@dataclass(slots=True)
class Pushed:
    """What a push did, in requests; `trouble` is why something waits still, None where nothing."""

    exported: int = 0
    left_out: int = 0
    refused: int = 0
    waiting: int = 0
    trouble: str | None = None


class _NotNowError(Exception):
    """Nothing more can be sent in this push."""


@dataclass(slots=True)
class _Load:
    """Requests with their spans, that are posted and marked together."""

    requests: list[Request] = field(default_factory=list)
    spans: list[list[Span]] = field(default_factory=list)
    size: int = 0
    count: int = 0

    def add(self, request: Request, spans: list[Span]) -> None:
        self.requests.append(request)
        self.spans.append(spans)
        self.count += len(spans)
        for span in spans:
            for text in span.texts.values():
                self.size += len(text)

    @property
    def full(self) -> bool:
        return self.count >= _POST_SPANS or self.size >= _POST_BYTES


class Pusher:
    """Pushes what waits in one ledger to one host."""

    def __init__(
        self,
        database: Database,
        destination: Destination,
        messages_of: MessagesOf,
        scrubber_of: ScrubberOf,
        exporter: Exporter,
    ) -> None:
        self._database = database
        self._destination = destination
        self._messages_of = messages_of
        self._scrubber_of = cache(scrubber_of)
        self._exporter = exporter
        self._words = vocabulary(destination)

    def push(self, left: SecondsLeft = lambda: math.inf, *, roots: bool = True) -> Pushed:
        """Send what waits, as long as seconds are left; without `left`, all of it.

        `roots` False keeps root spans back for a later push: their run goes on.
        """
        done = Pushed()
        with _alone(self._database, left) as alone:
            if alone:
                self._push(done, left, roots)
            else:
                done.trouble = "another process is sending traces"
        with self._database.read() as connection:
            done.waiting = outbox.waiting(connection)
        return done

    def _push(self, done: Pushed, left: SecondsLeft, roots: bool) -> None:
        worked = False
        try:
            while requests := self._window():
                worked = True
                for load in self._loads(self._sampled(requests, done)):
                    self._deliver(load, done, left)
            if roots:
                worked |= self._push_roots(left)
        except _NotNowError as reason:
            done.trouble = str(reason)
        if worked or done.trouble:
            outbox.note_push(self._database, done.trouble)

    def _window(self) -> list[Request]:
        with self._database.read() as connection:
            return outbox.window(connection, _WINDOW_REQUESTS, _WINDOW_BYTES)

    def _sampled(self, requests: Sequence[Request], done: Pushed) -> list[_Asked]:
        """Return the requests to send with their rows; mark those that are left out."""
        with self._database.read() as connection:
            rows = outbox.asked_rows(connection, requests)
        latest = {one.id: one for one in requests}  # it may stand there twice
        chosen, left = [], []
        for one in latest.values():
            asked = rows.get(one.seq, [])
            if self._is_chosen(one, asked):
                chosen.append((one, asked))
            else:
                left.append(one)
        done.left_out += len(left)
        if left:
            outbox.mark(self._database, left, outbox.LEFT_OUT)
        # an earlier settlement of a request that is sent as it is now
        before = [one for one in requests if latest[one.id] is not one]
        if before:
            outbox.mark(self._database, before, outbox.EXPORTED)
        return chosen

    def _is_chosen(self, request: Request, rows: Sequence[AskedRow]) -> bool:
        """Return whether a request is sent: what failed always, the others row by row."""
        percent = self._destination.sample_percent
        if percent >= 100 or request.state != "settled" or request.error_class or request.code:
            return True
        if any(row.failed for row in rows):
            return True
        return any(share(request.dataset, row.row_key) < percent for row in rows)

    def _loads(self, chosen: Sequence[_Asked]) -> Iterator[_Load]:
        messages = self._messages(chosen) if self._destination.texts else {}
        load = _Load()
        for request, asked in chosen:
            scrub = self._scrubber_of(request.dataset)
            sent = messages.get((request.dataset, request.partition), {})
            rows = [self._row(one, sent.get(one.row_key), scrub) for one in asked]
            load.add(request, request_spans(request, rows, self._words, scrub))
            if load.full:
                yield load
                load = _Load()
        if load.requests:
            yield load

    def _messages(
        self, chosen: Sequence[_Asked]
    ) -> Mapping[tuple[str, str | None], Mapping[str, str]]:
        wanted: dict[tuple[str, str | None], dict[str, tuple[bytes, int]]] = {}
        for request, asked in chosen:
            rows = wanted.setdefault((request.dataset, request.partition), {})
            rows.update({one.row_key: (one.answer_key, request.t_open) for one in asked})
        return {where: self._messages_of(*where, rows) for where, rows in wanted.items()}

    def _row(self, asked: AskedRow, messages: str | None, scrub: Scrub) -> Row:
        sent = None if messages is None else scrubbed_messages(messages, scrub)
        came = asked.text if self._destination.texts else None
        return Row(scrub(asked.row_key), asked, sent, None if came is None else scrub(came))

    def _deliver(self, load: _Load, done: Pushed, left: SecondsLeft) -> None:
        """Send a load and mark it; where the host does not take it, piece by piece."""
        spans = [span for spans in load.spans for span in spans]
        answer = self._post(spans, left)
        if _taken(answer):
            self._mark(load, outbox.EXPORTED, done)
            return
        if len(load.requests) == 1:  # perhaps it is the texts: they may be long
            done.trouble = f"{self._destination.url} {answer.why}"
            taken = _taken(self._post([span._replace(texts={}) for span in spans], left))
            self._mark(load, outbox.EXPORTED if taken else outbox.REFUSED, done)
            return
        if not done.exported:
            self._make_sure_of_the_host(load, answer, left)
        middle = len(load.requests) // 2
        for part in (slice(None, middle), slice(middle, None)):
            self._deliver(_Load(load.requests[part], load.spans[part]), done, left)

    def _make_sure_of_the_host(
        self, load: _Load, answer: Delivered | Refused, left: SecondsLeft
    ) -> None:
        """Stop where the host does not even take a root span: then it is not what was sent."""
        scrub = self._scrubber_of(load.requests[0].dataset)
        root = root_span(load.requests[0].root, self._words, scrub)
        if not _taken(self._post([root], left)):
            raise _NotNowError(f"{self._destination.url} {answer.why}, even for a single span")

    def _mark(self, load: _Load, state: int, done: Pushed) -> None:
        outbox.mark(self._database, load.requests, state)
        if state == outbox.EXPORTED:
            done.exported += len(load.requests)
        else:
            done.refused += len(load.requests)

    def _push_roots(self, left: SecondsLeft) -> bool:
        """Send the root spans that wait, each once; return whether any did."""
        last = b""  # a run that goes on makes them longer meanwhile: those are sent another time
        while roots := self._roots_after(last):
            spans = [root_span(one, self._words, self._scrubber_of(one.dataset)) for one in roots]
            if isinstance(answer := self._post(spans, left), Refused):
                raise _NotNowError(f"{self._destination.url} {answer.why}, for root spans")
            outbox.mark_roots(self._database, roots)
            last = roots[-1].trace_id
        return bool(last)

    def _roots_after(self, last: bytes) -> list[Root]:
        with self._database.read() as connection:
            return outbox.waiting_roots(connection, last, _POST_SPANS)

    def _post(self, spans: Sequence[Span], left: SecondsLeft) -> Delivered | Refused:
        """Send spans; wait where the host asks for that and there is time."""
        wait = _FIRST_WAIT_SECONDS
        for tries in range(1, _WAITS + 1):
            seconds = min(_POST_SECONDS, left())
            if seconds <= 0:
                raise _NotNowError("the time was over")
            answer = self._exporter.post(spans, seconds)
            if not isinstance(answer, Unavailable):
                return answer
            pause = wait if answer.after is None else answer.after
            if not answer.soon or pause >= left() or tries == _WAITS or pause > _POST_SECONDS:
                break
            time.sleep(pause)
            wait *= 2
        raise _NotNowError(f"{self._destination.url} {answer.why}")


def _taken(answer: Delivered | Refused) -> bool:
    return isinstance(answer, Delivered) and not answer.rejected


def vocabulary(destination: Destination) -> Vocabulary:
    """Return the names that a host gives to attributes."""
    if destination.kind == "langfuse":
        return LangfuseVocabulary(destination.environment)
    return GenAiVocabulary()


@contextmanager
def _alone(database: Database, left: SecondsLeft) -> Iterator[bool]:
    """Say whether no other process pushes; where one does, wait as long as there is time."""
    with open_private(f"{database.path}.traces-lock", "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if math.isinf(left()) or left() <= 0:
                    yield False
                    return
                time.sleep(_LOCK_POLL_SECONDS)
            else:
                yield True
                return
