"""A line of progress every few seconds, while the step's own thread is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ondine_dagster.engine.progress import Progress
from ondine_dagster.llm.prices import usd

EVERY_SECONDS = 10.0


class Heartbeat:
    """Logs `progress` until the block ends. A short run logs nothing."""

    def __init__(
        self,
        progress: Progress,
        log: Callable[[str], object],
        name: str,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._progress = progress
        self._log = log
        self._name = name
        self._every = every_seconds
        self._end = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._every):
            self._log(self._line())

    def _line(self) -> str:
        progress = self._progress
        rate = progress.done / max(0.001, time.monotonic() - self._started)
        return (
            f"{self._name}: {progress.done} rows done, {rate:.0f} rows/s, "
            f"{progress.in_flight} requests in flight, ${usd(progress.cost):.6f} paid"
        )
