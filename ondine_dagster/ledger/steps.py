"""How much to do in one write transaction, so that those who wait hardly notice it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STEP_SECONDS = 0.05
_FIRST, _LARGEST = 200, 20_000  # rows


class Steps:
    """Learns how many rows take about 50 ms."""

    def __init__(self, first: int = _FIRST, largest: int = _LARGEST) -> None:
        self.size = first
        self._largest = largest

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time the work on `size` rows; `size` is another one after it."""
        began = time.monotonic()
        yield
        slow = time.monotonic() - began > STEP_SECONDS
        self.size = max(1, self.size // 2) if slow else min(self.size * 2, self._largest)
