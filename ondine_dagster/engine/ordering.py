"""Puts the rows of a partition back into input order while they end out of order."""

from __future__ import annotations

from collections.abc import Mapping

from ondine_dagster.engine.rows import Chunk, RowOutcome


class PartitionBuffer:
    """Holds ended rows of one partition until every row before them has ended too."""

    def __init__(self, key: str, notes: Mapping[str, str]) -> None:
        self.key = key
        self._notes = notes
        self._keys: list[bytes | None] = []
        self._slots: list[RowOutcome | None] = []
        self._first = 0  # index in the partition of _slots[0]
        self._ready = 0  # how many slots from the first on have ended
        self._complete = False
        self._closed = False

    def add(self, answer_key: bytes | None) -> int:
        """Make room for the next row and return its index."""
        self._keys.append(answer_key)
        self._slots.append(None)
        return self._first + len(self._slots) - 1

    def place(self, index: int, outcome: RowOutcome) -> None:
        """Put the end of row `index`."""
        position = index - self._first
        assert self._slots[position] is None, f"row {index} of {self.key} ended twice"
        self._slots[position] = outcome
        while self._ready < len(self._slots) and self._slots[self._ready] is not None:
            self._ready += 1

    def complete(self) -> None:
        """No more rows will be added."""
        self._complete = True

    def take(self, at_least: int) -> Chunk | None:
        """Return the next rows in order, when there are enough or the partition is done."""
        done = self._complete and self._ready == len(self._slots)
        if self._closed or not (done or self._ready >= at_least):
            return None
        outcomes = [slot for slot in self._slots[: self._ready] if slot is not None]
        keys = self._keys[: self._ready]
        del self._slots[: self._ready]
        del self._keys[: self._ready]
        self._first += self._ready
        self._ready = 0
        self._closed = done
        return Chunk(self.key, outcomes, keys, last=done, notes=self._notes)
