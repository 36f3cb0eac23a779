"""What goes on beside the step's own thread: a line of progress now and then, events that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Self

from ondine_dagster.assets.monitoring.live import LiveStep, Pace, costs, speed, waits

BEAT_SECONDS = 1.0
BEATS_PER_LINE = 5


class Heartbeat:
    """Calls `on_beat` every second and logs how far `step` is every five, until the block ends."""

    def __init__(
        self,
        step: LiveStep,
        log: Callable[[str], object],
        on_beat: Callable[[], object],
    ) -> None:
        self._step = step
        self._log = log
        self._pace = Pace()
        self._on_beat = on_beat
        self._end = threading.Event()
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
        step = self._step
        shown = [
            f"{step.dataset}: {step.progress.done:,} of {step.rows:,} rows",
            # verify finishes none
            *([f"{step.finished:,} of {step.partitions:,} partitions"] if step.partitions else []),
            *speed([step], step.rows, self._pace),
            *costs([step]),
            *waits([step]),
        ]
        return ", ".join(shown)
