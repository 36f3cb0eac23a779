"""The one writer thread of a process: group commit of reservations and settlements.

A group is what arrived while the last one was being written, up to 200 items or 2 ms. A caller
hears of its item only after the commit, so an answer that was handed on is durable. While the
ledger cannot be written, settlements go to the spill instead, and reservations are refused.
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
from ondine_dagster.ledger.spill import Spill, take_in
from ondine_dagster.wording import plural

GROUP_ITEMS = 200
GROUP_SECONDS = 0.002
_TRIES = 3
_AGAIN_SECONDS = 5.0
_log = logging.getLogger(__name__)

Item = Reservation | Settlement
Result = Decision | None | BaseException
Done = Callable[[Result], None]
_Job = tuple[Item, Done]


class Writer:
    """Writes what is submitted, in groups, in its own thread."""

    def __init__(self, database: Database, process: bytes, spill: Spill) -> None:
        self._database = database
        self._process = process
        self._spill = spill
        self._ended = False
        # settlements that could not be written: money and answers that were received
        self._owed: list[Settlement] = []
        self._spilled = 0  # so many of them are in the spill, the first ones
        # why settlements are owed, in words for a person; None while the ledger can be written
        self.broken: LedgerUnavailable | None = None
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item, done: Done) -> None:
        """Queue an item. `done` gets a Decision (reservation), None (settlement) or an error.

        A settlement that only the spill could take is durable, so it gets None as well; `broken`
        says that there is one. `done` is called on the writer thread and must be quick. After
        `close` it is called at once, with an error.
        """
        self._queue.put((item, done))
        if self._ended:  # the thread may have gone before it saw the item
            self._refuse_the_rest()

    def close(self) -> list[Settlement]:
        """Write what is queued and end the thread; return what is owed to the ledger."""
        self._queue.put(None)
        self._thread.join()
        return self._owed

    def leave_to_parent(self) -> None:
        """In a forked child, which has no writer thread: refuse everything."""
        self._queue = queue.SimpleQueue()
        self._ended = True

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
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

    def _next_group(self) -> list[_Job] | None:
        """Return the next group; None when closed. It is empty where it is time to pay a debt."""
        group: list[_Job] = []
        try:
            job = self._queue.get(timeout=_AGAIN_SECONDS if self._owed else None)
            # not by get(timeout=...) with what is left of the time: where that is microseconds,
            # CPython (up to 3.13 at least) waits for the next item, however long that takes
            if job is not None and self._queue.qsize() < GROUP_ITEMS:
                time.sleep(GROUP_SECONDS)
            while job is not None:
                group.append(job)
                if len(group) == GROUP_ITEMS:
                    return group
                job = self._queue.get_nowait()
        except queue.Empty:
            return group
        if not group:
            return None
        self._queue.put(None)  # closing: this group first, then the end
        return group

    def _write(self, group: list[_Job]) -> None:
        items = [item for item, _ in group]
        try:
            results = self._commit(items)
        except LedgerUnavailable as error:
            results = [self._refusal(item, error) for item in items]
        except BaseException as error:  # noqa: BLE001 (every caller hears: nobody waits for ever)
            if len(group) > 1:
                for job in group:  # one item is at fault: the others are written without it
                    self._write([job])
                return
            results = [error] * len(group)
        for (_, done), result in zip(group, results, strict=True):
            _tell(done, result)

    def _commit(self, group: list[Item]) -> list[Result]:
        """Write one group; try again where it is in doubt whether the commit happened.

        Both halves are idempotent by the ids that the client made: a reservation that is in the
        ledger goes, a settled attempt moves nothing.
        """
        tries = 1 if self.broken else _TRIES
        for attempt in range(1, tries + 1):
            try:
                return self._transaction(group, in_doubt=attempt > 1)
            except LedgerUnavailable as error:
                if attempt == 1:  # at once: the next try may wait long for a lock
                    self._keep([item for item in group if isinstance(item, Settlement)], error)
                if attempt == tries:
                    raise
        raise AssertionError("unreachable")

    def _transaction(self, group: list[Item], *, in_doubt: bool) -> list[Result]:
        settlements = [item for item in group if isinstance(item, Settlement)]
        reservations = [item for item in group if isinstance(item, Reservation)]
        with self._database.write() as connection:
            refused = take_in(connection, self._owed)
            with moving(connection) as movements:
                settle(connection, settlements, movements)
                decisions = iter(
                    reserve(connection, self._process, reservations, movements, in_doubt=in_doubt)
                )
        if self._owed:
            self._paid(refused)
        return [next(decisions) if isinstance(item, Reservation) else None for item in group]

    def _keep(self, settlements: list[Settlement], error: LedgerUnavailable) -> None:
        """Bring what cannot be written to the spill."""
        self._owed += settlements
        if not self._owed:
            return
        try:
            self._spill.append(self._owed[self._spilled :])
            self._spilled = len(self._owed)
            where = f"is safe in {self._spill.path}: the next run pays for none of it again."
        except OSError as failure:
            where = (
                f"is in the memory of this process only ({failure}), which writes it as soon as "
                "that is possible: let it live until then."
            )
        first = self.broken is None
        self.broken = LedgerUnavailable(
            f"{error} What {plural(len(self._owed), 'request')} brought since {where}"
        )
        if first:
            _log.error("%s", self.broken)

    def _refusal(self, item: Item, error: LedgerUnavailable) -> Result:
        """Return what the caller of an item hears that is not in the ledger."""
        durable = isinstance(item, Settlement) and self._spilled == len(self._owed)
        return None if durable else self.broken or error

    def _paid(self, refused: list[Settlement]) -> None:
        """What was owed is in the ledger, but for what it refuses."""
        if refused:
            self._spill.set_aside(refused)
        with suppress(OSError):  # what is left there moves nothing when it is taken in again
            self._spill.clear()
        self._owed, self._spilled, self.broken = [], 0, None
        _log.warning("The ledger %s can be written again.", self._database.path)


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
