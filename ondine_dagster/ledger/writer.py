"""The one writer thread of a process: group commit of reservations and settlements.

A group is what arrived while the last one was being written, up to 200 items or 2 ms. A caller
hears of its item only after the commit, so an answer that was handed on is durable.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.database import Database, LedgerUnavailable
from ondine_dagster.ledger.records import Decision, Reservation, Settlement
from ondine_dagster.ledger.reserve import reserve
from ondine_dagster.ledger.settle import settle
from ondine_dagster.ledger.spend import moving

GROUP_ITEMS = 200
GROUP_SECONDS = 0.002
_TRIES = 3
_log = logging.getLogger(__name__)

Item = Reservation | Settlement
Result = Decision | None | BaseException
Done = Callable[[Result], None]
_Job = tuple[Item, Done]


class Writer:
    """Writes what is submitted, in groups, in its own thread."""

    def __init__(self, database: Database, process: bytes) -> None:
        self._database = database
        self._process = process
        self._ended = False
        # settlements that could not be written (disk full): money and answers that were received
        self._owed: list[Settlement] = []
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item, done: Done) -> None:
        """Queue an item. `done` gets a Decision (reservation), None (settlement) or an error.

        It is called on the writer thread and must be quick. After `close` it is called at once,
        with an error.
        """
        self._queue.put((item, done))
        if self._ended:  # the thread may have gone before it saw the item
            self._refuse_the_rest()

    def close(self) -> None:
        """Write what is queued and what is owed, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        if self._owed:
            with suppress(LedgerUnavailable):
                self._transaction([], in_doubt=True)

    def leave_to_parent(self) -> None:
        """In a forked child, which has no writer thread: refuse everything."""
        self._queue = queue.SimpleQueue()
        self._ended = True

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._write(group)
        finally:
            self._ended = True
            self._refuse_the_rest()

    def _refuse_the_rest(self) -> None:
        with suppress(queue.Empty):
            while True:
                job = self._queue.get_nowait()
                if job is not None:
                    _tell(job[1], OndineError("The ledger is closed in this process."))

    def _next_group(self) -> list[_Job]:
        """Return the next group; empty when closed."""
        job = self._queue.get()
        group: list[_Job] = []
        deadline = time.monotonic() + GROUP_SECONDS
        while job is not None:
            group.append(job)
            if len(group) == GROUP_ITEMS:
                return group
            try:
                job = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # closing: this group first, then the end
        return group

    def _write(self, group: list[_Job]) -> None:
        try:
            results = self._commit([item for item, _ in group])
        except BaseException as error:  # noqa: BLE001 (every caller hears: nobody waits for ever)
            if len(group) > 1 and not isinstance(error, LedgerUnavailable):
                for job in group:  # one item is at fault: the others are written without it
                    self._write([job])
                return
            if isinstance(error, LedgerUnavailable):
                self._owed += [item for item, _ in group if isinstance(item, Settlement)]
            results = [error] * len(group)
        for (_, done), result in zip(group, results, strict=True):
            _tell(done, result)

    def _commit(self, group: list[Item]) -> list[Result]:
        """Write one group; try again where it is in doubt whether the commit happened.

        Both halves are idempotent by the ids that the client made: a reservation that is in the
        ledger goes, a settled attempt moves nothing.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return self._transaction(group, in_doubt=attempt > 1)
            except LedgerUnavailable:
                if attempt == _TRIES:
                    raise
        raise AssertionError("unreachable")

    def _transaction(self, group: list[Item], *, in_doubt: bool) -> list[Result]:
        settlements = [item for item in group if isinstance(item, Settlement)]
        reservations = [item for item in group if isinstance(item, Reservation)]
        with self._database.write() as connection, moving(connection) as movements:
            settle(connection, self._owed, movements)
            settle(connection, settlements, movements)
            decisions = iter(
                reserve(connection, self._process, reservations, movements, in_doubt=in_doubt)
            )
        self._owed = []
        return [next(decisions) if isinstance(item, Reservation) else None for item in group]


def _tell(done: Done, result: Result) -> None:
    try:
        done(result)
    except Exception:  # noqa: BLE001 (a listener's bug must not end the thread all others need)
        _log.exception("A listener of the ledger failed.")


def wait_for(submit: Callable[[Item, Done], None], items: Sequence[Item]) -> list[Decision | None]:
    """Submit `items` and block until all are durable; raise what went wrong."""
    results: queue.SimpleQueue[tuple[int, Result]] = queue.SimpleQueue()
    for index, item in enumerate(items):
        submit(item, lambda result, index=index: results.put((index, result)))  # type: ignore[misc]
    found = dict(results.get() for _ in items)
    for result in found.values():
        if isinstance(result, BaseException):
            raise result
    return [cast(Decision | None, found[index]) for index in range(len(items))]
