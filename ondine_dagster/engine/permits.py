"""Permits to send: so many at once, first come, first served, and none while it is closed."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Permits:
    """Hands out at most `limit` permits. Belongs to one event loop.

    Whoever changes `limit` or `closed` calls `hand_over` then. A permit goes straight to the one
    who waits longest, so nobody is woken in vain.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self.held = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    @property
    def wanted(self) -> bool:
        """Return whether somebody waits."""
        return bool(self._waiting)

    async def take(self) -> bool:
        """Return True with a permit, False where `dismiss` ended the wait."""
        if not self.closed and self.held < self.limit and not self._waiting:
            self.held += 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # taken out in the same step
                    self._waiting.remove(turn)
            elif turn.result():  # handed over and cancelled in one step of the loop
                self.give_back()
            raise

    def give_back(self) -> None:
        """Return a permit."""
        self.held -= 1
        self.hand_over()

    def hand_over(self) -> None:
        """Give what is free to those who wait."""
        while self._waiting and not self.closed and self.held < self.limit:
            self.hand_one()

    def hand_one(self) -> bool:
        """Give a permit to the first who waits, also where all are taken or it is closed."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self.held += 1
                turn.set_result(True)
                return True
        return False

    def dismiss(self) -> None:
        """End all waits without a permit."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)
