"""The one writer thread of a process: group commit of reservations and settlements.

A group is what arrived while the last one was being written, up to 200 items or 2 ms. A caller
hears of its item only after the commit, so an answer that was handed on is durable.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from sqlalchemy.exc import DBAPIError

from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.records import Decision, Reservation, Settlement
from ondine_dagster.ledger.reserve import reserve
from ondine_dagster.ledger.settle import settle

GROUP_ITEMS = 200
GROUP_SECONDS = 0.002
_TRIES = 3

Item = Reservation | Settlement
Result = Decision | None | BaseException
Done = Callable[[Result], None]
_Job = tuple[Item, Done]


class Writer:
    """Writes what is submitted, in groups, in its own thread."""

    def __init__(self, database: Database, process: bytes) -> None:
        self._database = database
        self._process = process
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item, done: Done) -> None:
        """Queue an item. `done` gets a Decision (reservation), None (settlement) or an error.

        It is called on the writer thread and must be quick.
        """
        self._queue.put((item, done))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._write(group)

    def _next_group(self) -> list[_Job]:
        """Return the next group; empty when closed."""
        first = self._queue.get()
        group: list[_Job] = []
        deadline = time.monotonic() + GROUP_SECONDS
        while first is not None:
            group.append(first)
            if len(group) == GROUP_ITEMS:
                break
            try:
                first = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
        if first is None and group:
            self._queue.put(None)  # closing: this group first, then the end
        return group

    def _write(self, group: list[_Job]) -> None:
        settlements = [item for item, _ in group if isinstance(item, Settlement)]
        reservations = [item for item, _ in group if isinstance(item, Reservation)]
        try:
            decisions = iter(self._commit(settlements, reservations))
        except BaseException as error:  # every caller hears of it: nobody may wait for ever
            for _, done in group:
                done(error)
            return
        for item, done in group:
            done(next(decisions) if isinstance(item, Reservation) else None)

    def _commit(
        self, settlements: list[Settlement], reservations: list[Reservation]
    ) -> list[Decision]:
        """Write one group; try again where it is in doubt whether the commit happened.

        Both halves are idempotent by the ids that the client made: a reservation that is in the
        ledger goes, a settled attempt moves nothing.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with self._database.write() as connection:
                    if settlements:
                        settle(connection, settlements)
                    if reservations:
                        return reserve(connection, self._process, reservations)
                    return []
            except DBAPIError:
                if attempt == _TRIES:
                    raise
                self._database.reopen()
        raise AssertionError("unreachable")


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
