"""The ledger from inside the event loop: awaitable reservations and settlements.

The writer thread reports a whole group at once; the loop is woken once per group, not per item.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Decision, Reservation, Settlement
from ondine_dagster.ledger.writer import Result


class LedgerClient:
    """Awaits what the ledger's writer thread makes durable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[asyncio.Future[Decision | None], Result]] = deque()
        self._woken = False

    async def reserve(self, item: Reservation) -> Decision:
        """Reserve; returns when it is durable."""
        decision = await self._submit(item)
        assert isinstance(decision, Decision)
        return decision

    async def settle(self, item: Settlement) -> None:
        """Settle; returns when it is durable."""
        await self._submit(item)

    def _submit(self, item: Reservation | Settlement) -> asyncio.Future[Decision | None]:
        future: asyncio.Future[Decision | None] = self._loop.create_future()
        self._ledger.submit(item, partial(self._report, future))
        return future

    def _report(self, future: asyncio.Future[Decision | None], result: Result) -> None:
        """Run on the writer thread."""
        self._results.append((future, result))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._results:
            future, result = self._results.popleft()
            if future.cancelled():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
