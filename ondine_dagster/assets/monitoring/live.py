"""The steps that are asking right now in this process, for whoever shows progress.

A step announces itself and goes on counting; it knows nothing of those who look. What is shown of
it is the same in Dagster's log and on the command line.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ondine_dagster.assets.shared.partition_counts import PartitionCounts
from ondine_dagster.engine.progress import Progress
from ondine_dagster.llm.prices import money

_WINDOW_SECONDS = 30.0  # over which the rate is taken: it follows a provider that slows down
_HOUR, _MINUTE = 3600, 60


@dataclass(slots=True)
class LiveStep:
    """One step while it asks: the engine's numbers, and how many partitions it has finished.

    `rows` are those of all its `partitions`; `red` of the finished ones are not complete. `stop`
    lets it send nothing more, and end as soon as what is in flight has.
    """

    dataset: str
    partitions: int
    rows: int
    progress: Progress
    stop: Callable[[], None]
    finished: int = 0
    red: int = 0
    began: float = field(default_factory=time.monotonic)
    _throttled: float = 0
    _paused: float = 0

    def finish(self, counts: PartitionCounts) -> None:
        """Count a finished partition, and note in `counts` what the step waited for meanwhile."""
        progress = self.progress
        self.finished += 1
        self.red += counts.red
        counts.throttled_seconds = progress.throttled_seconds - self._throttled
        counts.paused_seconds = progress.paused_seconds - self._paused
        self._throttled, self._paused = progress.throttled_seconds, progress.paused_seconds
        counts.rows_per_second = progress.done / max(0.001, time.monotonic() - self.began)


class Pace:
    """How many rows end per second lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen = deque([(clock(), 0)])

    def rate(self, done: int) -> float:
        """Return the rate over the last half minute, now that `done` rows have ended."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / max(0.001, now - since)


def speed(steps: Sequence[LiveStep], rows: int, pace: Pace) -> list[str]:
    """Return in words how fast `steps` are with `rows` rows, and when they will be done."""
    done = sum(step.progress.done for step in steps)
    rate = pace.rate(done)
    shown = [f"{rate:,.0f} rows/s"]
    if rate > 0 and done < rows:
        shown.append(f"about {_duration((rows - done) / rate)} left")
    return shown


def costs(steps: Sequence[LiveStep]) -> list[str]:
    """Return in words what `steps` have paid, and what they may pay for what is on its way."""
    running = [step.progress for step in steps]
    reserved = sum(progress.reserved for progress in running)
    most = f" (at most {money(reserved)})" if reserved else ""
    shown = [
        f"{money(sum(progress.cost for progress in running))} paid",
        f"{sum(progress.in_flight for progress in running):,} requests in flight{most}",
    ]
    requests = sum(progress.requests for progress in running)
    if (asked := sum(progress.asked for progress in running)) > requests:
        shown.append(f"{asked / requests:.1f} rows per request")
    return shown


def waits(steps: Sequence[LiveStep]) -> list[str]:
    """Return what holds requests back right now, in words for a person."""
    return sorted({step.progress.waiting_for or "" for step in steps} - {""})


def _duration(seconds: float) -> str:
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:,.1f} h"
    if seconds >= _MINUTE:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{max(1, round(seconds))} s"


Watcher = Callable[[LiveStep], None]
_watchers: list[Watcher] = []


def announce(step: LiveStep) -> None:
    """Tell everybody who watches that `step` begins to ask."""
    for watcher in list(_watchers):
        watcher(step)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call `watcher` with each step that begins to ask within the block."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
