"""Questions that wait for money: requests in flight reserve their worst case, and give most back.

First come, first served. A settlement wakes a few, not all: each that finds room wakes the next.
Other processes settle too, so the first one looks again every half second, and buries the dead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.stop import StopSign

_LOOK_SECONDS = 0.5
_WOKEN_BY_ONE = 2


class BudgetQueue:
    """Those that a limit left no room for. Belongs to one event loop."""

    def __init__(self, reap: Callable[[], object], stop: StopSign, progress: Progress) -> None:
        """`reap` ends the reservations of dead processes; it is called in a worker thread."""
        self._reap = reap
        self._stop = stop
        self._progress = progress
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._looking: asyncio.Task[None] | None = None
        stop.when_set(self._wake_all)

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    async def wait(self, *, again: bool) -> None:
        """Return when it is worth to try (again), or when the stop sign is set.

        `again`: it was its turn before, so it keeps its place at the head.
        """
        if self._stop.is_set():
            return
        turn = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again())
        self._progress.short_of_money += 1
        try:
            await turn
        finally:
            self._progress.short_of_money -= 1

    def freed(self) -> None:
        """A request of this process has ended: money may have become free."""
        self._wake(_WOKEN_BY_ONE)

    def found_room(self) -> None:
        """One that waited goes: there may be room for the next."""
        self._wake(1)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def _wake_all(self) -> None:
        self._wake(len(self._waiting))

    async def _look_again(self) -> None:
        try:
            while self._waiting:
                await self._stop.sleep(_LOOK_SECONDS)
                await asyncio.to_thread(self._reap)
                self._wake(1)
        except BaseException as error:
            for turn in self._waiting:  # whoever waits must hear of it, or would wait for ever
                if not turn.done():
                    turn.set_exception(error)
            self._waiting.clear()
            if not isinstance(error, Exception):
                raise
        finally:
            self._looking = None
