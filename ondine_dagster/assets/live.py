"""The steps that are asking right now in this process, for whoever shows progress.

A step announces itself and goes on counting; it knows nothing of those who look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ondine_dagster.engine.progress import Progress


@dataclass(slots=True)
class LiveStep:
    """One step while it asks: the engine's numbers, and how many partitions it has finished.

    `red` of the finished ones are not complete.
    """

    dataset: str
    partitions: int
    progress: Progress
    finished: int = 0
    red: int = 0


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
