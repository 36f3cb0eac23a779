"""Why nothing more is sent, and waits that end when that happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure

INTERRUPTED = Failure(
    ErrorClass.TRANSIENT, ErrorCode.STOPPED, "the run was interrupted", Evidence.NOT_SENT
)


class StopSign:
    """Set once, by whatever makes further requests pointless. Belongs to one event loop."""

    def __init__(self) -> None:
        self.reason: Failure | None = None
        self._event = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def set(self, reason: Failure) -> None:
        """Stop sending; the first reason stands."""
        if self.reason is None:
            self.reason = reason
            self._event.set()
            for listener in self._listeners:
                listener()

    def when_set(self, listener: Callable[[], None]) -> None:
        """Call `listener` once the sign is set: for waits that other things can end too."""
        self._listeners.append(listener)

    def is_set(self) -> bool:
        """Return whether nothing more may be sent."""
        return self._event.is_set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or until the sign is set."""
        # not wait_for: up to Python 3.11 it swallows a cancellation that meets the sign
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
