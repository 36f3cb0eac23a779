"""Reads answers by code of the user's own, and remembers which are being read right now."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from ondine_dagster.llm.answers import AnswerReader, Values
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.spec import Output


@dataclass(slots=True)
class Call:
    """One answer that is being read: of which row, if that is known, and since when."""

    row: tuple[str, str] | None
    text: str
    began: float
    told: bool = False


class WatchedReader(AnswerReader):
    """A reader of answers that other threads may ask for the calls that have not returned."""

    def __init__(self, output: Output, code: Any) -> None:
        super().__init__(output, code)
        self.setting = f"output.{output.kind} {output.function or output.model}"
        self._rows: dict[int, tuple[str, str]] = {}  # by thread, as are the calls
        self._calls: dict[int, Call] = {}

    def next_row(self, partition: str, row_key: str) -> None:
        """Say whose answer this thread reads next."""
        self._rows[threading.get_ident()] = partition, row_key

    def read(self, text: str, flags: list[str] | None = None) -> Values | Rejection:
        """Read as `AnswerReader` does."""
        thread = threading.get_ident()
        self._calls[thread] = Call(self._rows.get(thread), text, time.monotonic())
        try:
            return super().read(text, flags)
        finally:
            del self._calls[thread]

    def slow_calls(self, seconds: float) -> list[Call]:
        """Return the calls that have lasted for longer than so many seconds."""
        latest = time.monotonic() - seconds
        return [one for one in list(self._calls.values()) if one.began < latest]
