"""An event loop on a fake clock: where it would wait for a timer, the time is simply later."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")
START = 1_800_000_000  # seconds since the epoch
COMMIT_SECONDS = 0.02


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Nothing takes time but timers. What is meant for a worker thread happens at once.

    It is reported `commit_seconds` later.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self.commit_seconds = COMMIT_SECONDS
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    def microseconds(self) -> int:
        """Return the time since the epoch, as the ledger's clock does."""
        return round((START + self._now) * 1_000_000)

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._in_worker(func, args), loop=self)

    async def _in_worker(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return func(*args)
        finally:
            await asyncio.sleep(self.commit_seconds)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: FakeTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and for nothing that will ever happen"
        self._loop.jump(max(0.0, timeout))
        return super().select(0)


def fake_loop() -> FakeTimeLoop:
    """Return the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeTimeLoop)
    return loop


def run_in_fake_time(main: Coroutine[Any, Any, Value]) -> Value:
    """Run `main` on a loop of its own that starts at `START`."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)
