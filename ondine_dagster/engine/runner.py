"""Keeps the provider busy: feeds rows lazily across partitions to a bounded set of workers.

Tasks are bounded by the concurrency, memory by a window of rows, whatever the size of the table.
The tail of one partition does not idle the next. Equal questions of one run are asked once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar, cast

from ondine_dagster.engine.asking import Asker
from ondine_dagster.engine.job import Job, Pack
from ondine_dagster.engine.ordering import PartitionBuffer
from ondine_dagster.engine.pilot import Pilot, PilotPlan
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.ready import Ready
from ondine_dagster.engine.rows import (
    Chunk,
    PartitionFeed,
    Question,
    RowOutcome,
    stored,
)
from ondine_dagster.engine.stop import INTERRUPTED, StopSign
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.lookup import usable
from ondine_dagster.ledger.records import KeyStates, Settlement

CHUNK_ROWS = 500
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 2.0
_REAP_SECONDS = 0.5
_T = TypeVar("_T")
_END = object()
_Row = Question | RowOutcome
_Slot = tuple[PartitionBuffer, int]


class Runner:
    """One run of one dataset inside the event loop."""

    def __init__(
        self,
        ledger: Ledger,
        asker: Asker,
        emit: Callable[[Chunk], None],
        *,
        ceiling: int,
        workers: int,
        window_rows: int,
        stop: StopSign,
        progress: Progress,
        ready: Ready,
        pilot: PilotPlan | None = None,
        before_first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`before_first` is awaited once, before the first question is asked; without one, never.

        It may stop the run.
        """
        self._ledger = ledger
        self._asker = asker
        self._emit = emit
        self._ceiling = ceiling
        self._workers = workers
        self._window = window_rows
        # a quarter of the window: what waits to make a chunk must never fill it
        self._chunk_rows = max(1, min(CHUNK_ROWS, window_rows // 4))
        self._stop = stop
        self._progress = progress
        self._before_first = before_first
        self._outstanding = 0  # rows fed and not yet taken by the consumer
        self._room = asyncio.Event()
        self._ready = ready
        asker.others_wait = lambda: ready.never_asked > 0
        self.pilot = Pilot(pilot, stop, ready.put) if pilot else None
        if self.pilot is not None:
            asker.delayed = self.pilot.substitute
        self._slots: dict[bytes, list[_Slot]] = defaultdict(list)
        self._idle = asyncio.Event()
        self._taken: dict[bytes, Job] = {}
        self._some_taken = asyncio.Event()
        self._aborted = asyncio.Event()
        self._bug: BaseException | None = None

    async def run(self, feeds: Iterable[PartitionFeed], drain_seconds: float) -> None:
        """Ask every row of `feeds`. Raises our own bugs, after what was in flight has ended."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        poller = asyncio.create_task(self._poll_taken())
        feeding = asyncio.create_task(self._feed(feeds))
        aborted = asyncio.create_task(self._aborted.wait())
        await asyncio.wait({feeding, aborted}, return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        self._ready.close()
        _, late = await asyncio.wait(workers, timeout=drain_seconds if self._stopping() else None)
        poller.cancel()
        await self._abandon(late)
        await asyncio.wait({feeding, poller})
        if self._bug is not None:
            raise self._bug

    def interrupt(self) -> None:
        """Send nothing more; what is in flight may end."""
        self._stop.set(INTERRUPTED)
        self._aborted.set()
        self._room.set()
        self._idle.set()

    def stop(self) -> None:
        """Send nothing more; every row ends, most of them not attempted."""
        self._stop.set(INTERRUPTED)

    def consumed(self, rows: int) -> None:
        """The consumer has taken `rows` rows off our hands."""
        self._outstanding -= rows
        self._room.set()

    def _stopping(self) -> bool:
        return self._aborted.is_set()

    async def _abandon(self, late: set[asyncio.Task[None]]) -> None:
        """Requests that did not end in time: unknown, in one transaction, then let go."""
        lost = [Settlement(attempt, "unknown") for attempt in self._asker.in_flight]
        try:
            if lost:
                await asyncio.to_thread(self._ledger.settle_all, lost)
        except Exception as error:  # noqa: BLE001 (they stay open until this process is reaped)
            self._crash(error)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    # feeding

    async def _feed(self, feeds: Iterable[PartitionFeed]) -> None:
        try:
            async for feed in _in_thread(feeds):
                buffer = PartitionBuffer(feed.key, feed.notes)
                async for batch in _in_thread(feed.batches):
                    await self._take_in_steps(buffer, batch)
                    if self._stopping():
                        return
                buffer.complete()
                self._flush(buffer)
            await self._wait_until_idle()
        except BaseException as error:  # noqa: BLE001 (raised by run, with its type)
            self._crash(error)

    async def _take_in_steps(self, buffer: PartitionBuffer, batch: Sequence[_Row]) -> None:
        """Take in as many rows at a time as the window has room for."""
        taken = 0
        while taken < len(batch) and not self._stopping():
            room = self._window - self._outstanding
            if room > 0:
                await self._take_in(buffer, batch[taken : taken + room])
                taken += room
            else:
                self._room.clear()
                await self._room.wait()

    async def _wait_until_idle(self) -> None:
        while self._slots and not self._stopping():
            self._idle.clear()
            await self._idle.wait()

    async def _take_in(self, buffer: PartitionBuffer, batch: Sequence[_Row]) -> None:
        """Place what is known already; queue the rest."""
        keys = {row.answer_key for row in batch if isinstance(row, Question)}
        found = await asyncio.to_thread(self._ledger.look_up, keys, self._ceiling) if keys else {}
        self._asker.refusals.answered |= bool(found)
        self._outstanding += len(batch)
        for row in batch:
            if isinstance(row, RowOutcome):
                self._place((buffer, buffer.add(row.answer_key)), row)
                continue
            slot = (buffer, buffer.add(row.answer_key))
            answer = found.get(row.answer_key)
            if answer is not None and row.served_by(answer):
                self._place(slot, stored(answer))
                continue
            if self._before_first is not None:
                before, self._before_first = self._before_first, None
                await before()
            self._queue(row, slot)
        self._flush(buffer)

    def _queue(self, question: Question, slot: _Slot) -> None:
        slots = self._slots[question.answer_key]
        slots.append(slot)
        if len(slots) == 1:  # the others with this question wait for its answer
            job = Job(question, slot[0].key)
            if self.pilot is None or self.pilot.admits(job):
                self._ready.put(job)

    # asking

    async def _work(self) -> None:
        try:
            while (pack := await self._ready.take()) is not None:
                several = len(pack.jobs) > 1
                try:
                    await self._asker.ask(pack)
                    self._go_on(pack)
                finally:
                    self._ready.done(several=several)
        except Exception as error:  # noqa: BLE001 (raised by run, with its type)
            self._crash(error)

    def _go_on(self, pack: Pack) -> None:
        """Do what became of each question of a pack that was asked."""
        for job in pack.taken:
            self._taken[job.question.answer_key] = job
            self._some_taken.set()
        for job, outcome in pack.ended:
            self._end(job, outcome)
        for smaller in pack.again:
            self._ready.put_pack(smaller)

    def _end(self, job: Job, outcome: RowOutcome) -> None:
        if self.pilot is not None:
            self.pilot.ended(job, outcome)
        first, *others = self._slots.pop(job.question.answer_key)
        self._place(first, outcome)
        self._flush(first[0])
        for slot in others:
            self._place(slot, outcome.reused())
            self._flush(slot[0])
        if not self._slots:
            self._idle.set()

    def _place(self, slot: _Slot, outcome: RowOutcome) -> None:
        buffer, index = slot
        buffer.place(index, outcome)
        self._progress.count(outcome)

    def _flush(self, buffer: PartitionBuffer) -> None:
        chunk = buffer.take(self._chunk_rows)
        if chunk is not None:
            self._emit(chunk)

    def _crash(self, error: BaseException) -> None:
        """Our own bug: stop at once, let what is in flight end, then raise it."""
        if self._bug is None:
            self._bug = error
        self.interrupt()

    # questions that another process is asking

    async def _poll_taken(self) -> None:
        try:
            await self._poll_for_ever()
        except Exception as error:  # noqa: BLE001 (raised by run, with its type)
            self._crash(error)

    async def _poll_for_ever(self) -> None:
        wait, reaped = _FIRST_POLL_SECONDS, 0.0
        while True:
            await self._some_taken.wait()
            await self._stop.sleep(wait)
            if self._stop.is_set():
                self._let_taken_go()
                continue
            if time.monotonic() - reaped >= _REAP_SECONDS:  # whoever asks may have died
                await asyncio.to_thread(self._ledger.reap)
                reaped = time.monotonic()
            states = await asyncio.to_thread(self._ledger.key_states, list(self._taken))
            moved = self._settle_taken(states)
            wait = _FIRST_POLL_SECONDS if moved else min(_LONGEST_POLL_SECONDS, wait * 1.5)

    def _settle_taken(self, states: KeyStates) -> bool:
        """End what is answered by now, queue what nobody asks any more."""
        before = len(self._taken)
        for key, job in list(self._taken.items()):
            answer = states.answers.get(key)
            if answer and usable(answer, self._ceiling) and job.question.served_by(answer):
                del self._taken[key]
                self._end(job, stored(answer))
            elif key not in states.open:
                del self._taken[key]
                self._ready.put(job)
        if not self._taken:
            self._some_taken.clear()
        return len(self._taken) < before

    def _let_taken_go(self) -> None:
        for key, job in list(self._taken.items()):
            del self._taken[key]
            self._end(job, self._asker.not_attempted())
        self._some_taken.clear()


async def _in_thread(items: Iterable[_T]) -> AsyncIterator[_T]:
    """Iterate in worker threads, so that reading files does not hold up the loop."""
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield cast(_T, item)
