"""What goes on beside the step's own thread: a line of progress now and then, events that wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Self

from ondine_dagster.engine.progress import Progress
from ondine_dagster.llm.prices import usd

BEAT_SECONDS = 1.0
BEATS_PER_LINE = 10


class Heartbeat:
    """Calls `on_beat` every second and logs `progress` every ten, until the block ends."""

    def __init__(
        self,
        progress: Progress,
        log: Callable[[str], object],
        name: str,
        on_beat: Callable[[], object],
    ) -> None:
        self._progress = progress
        self._log = log
        self._name = name
        self._on_beat = on_beat
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
        for beat in count(1):
            if self._end.wait(BEAT_SECONDS):
                return
            self._on_beat()
            if beat % BEATS_PER_LINE == 0:
                self._log(self._line())

    def _line(self) -> str:
        progress = self._progress
        rate = progress.done / max(0.001, time.monotonic() - self._started)
        waiting = f", {progress.waiting_for}" if progress.waiting_for else ""
        return (
            f"{self._name}: {progress.done} rows done, {rate:.0f} rows/s, "
            f"{progress.in_flight} requests in flight, ${usd(progress.cost):.6f} paid{waiting}"
        )
