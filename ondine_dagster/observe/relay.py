"""Hands what happens to somebody who may be slow or broken, and never waits for them.

A queue that is bounded and a thread of its own: what does not fit is dropped and counted, what the
receiver raises is kept, and one that hangs is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

MOST_WAITING = 10_000
# how long the end of a step waits for what is on its way
END_SECONDS = 5.0
_POLL_SECONDS = 0.2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Undelivered:
    """What did not arrive: `dropped` had no room, `left` were not taken in time.

    `errors` is how often the receiver raised, `error` the first of them.
    """

    dropped: int
    left: int
    errors: int
    error: BaseException | None


class Relay(Generic[_T]):
    """Calls `deliver` with each item, one after the other, in a thread of its own."""

    def __init__(
        self, deliver: Callable[[_T], object], name: str, most: int = MOST_WAITING
    ) -> None:
        """At most `most` items wait; `name` is that of the thread."""
        self._deliver = deliver
        self._waiting: Queue[_T] = Queue(most)
        self._ending = self._left_behind = self._busy = False
        self._lock = threading.Lock()
        self._dropped = self._errors = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: _T) -> None:
        """Hand on an item, from any thread, at once."""
        try:
            self._waiting.put_nowait(item)
        except Full:
            with self._lock:
                self._dropped += 1

    def close(self, seconds: float) -> Undelivered:
        """Wait up to so many seconds for what is on its way; then nothing more is delivered."""
        self._ending = True
        self._thread.join(seconds)
        self._left_behind = True
        left = self._waiting.qsize() + self._busy
        return Undelivered(self._dropped, left, self._errors, self._error)

    def _run(self) -> None:
        while not self._left_behind:
            try:
                item = self._waiting.get(timeout=_POLL_SECONDS if not self._ending else 0.001)
            except Empty:
                if self._ending:
                    return
                continue
            self._busy = True
            try:
                self._deliver(item)
            except BaseException as error:  # noqa: BLE001 (SystemExit too; told by who closes)
                self._errors += 1
                self._error = self._error or error
            finally:
                self._busy = False
