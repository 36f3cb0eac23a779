"""The ledger from inside the event loop: awaitable reservations and settlements.

The writer thread reports a whole group at once; the loop is woken once per group, not per item.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Decision, Reservation, Settlement
from ondine_dagster.ledger.writer import Result

# what was submitted, and who waits for its end
_Waiting = tuple[Reservation | Settlement, asyncio.Future[Decision | None]]


class LedgerClient:
    """Awaits what the ledger's writer thread makes durable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[_Waiting, Result]] = deque()
        self._woken = False

    async def reserve(self, item: Reservation) -> Decision:
        """Reserve; returns when it is durable. Nothing stays reserved where that is cancelled."""
        decision = await self._submit(item)
        assert isinstance(decision, Decision)
        return decision

    async def settle(self, item: Settlement) -> None:
        """Settle; returns when it is durable."""
        await self._submit(item)

    def _submit(self, item: Reservation | Settlement) -> asyncio.Future[Decision | None]:
        future: asyncio.Future[Decision | None] = self._loop.create_future()
        self._ledger.submit(item, partial(self._report, (item, future)))
        return future

    def _report(self, waiting: _Waiting, result: Result) -> None:
        """Run on the writer thread."""
        self._results.append((waiting, result))
        if not self._woken or self._loop.is_closed():
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is gone: nobody waits any more
                self._woken = False
                while self._results:
                    (item, _), unheard = self._results.popleft()
                    self._give_back(item, unheard)

    def _deliver(self) -> None:
        self._woken = False
        while self._results:
            (item, future), result = self._results.popleft()
            if future.cancelled():
                self._give_back(item, result)
            elif isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _give_back(self, item: Reservation | Settlement, result: Result) -> None:
        """End a request that nobody will send: its question would be blocked while we live."""
        if isinstance(result, Decision) and result.go:
            self._ledger.submit(Settlement(item.attempt, "released", cost=0), lambda _: None)
