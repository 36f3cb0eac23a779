"""A run of the engine in a thread, for what a test does while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from ondine_dagster.engine.engine import Engine
from ondine_dagster.engine.rows import Chunk, Question, RowOutcome
from ondine_dagster_tests.engine.harness import feeds


class Background:
    """Consumes a run in a thread, until it ends or is told to leave."""

    def __init__(self, engine: Engine, *partitions: Sequence[Question]) -> None:
        self.engine = engine
        self.chunks: list[Chunk] = []
        self.error: BaseException | None = None
        self._run = engine.run(feeds(*partitions))
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    @property
    def rows(self) -> list[RowOutcome]:
        """The rows that have come out so far."""
        return [row for chunk in self.chunks for row in chunk.outcomes]

    def _consume(self) -> None:
        try:
            with closing(self._run) as chunks:
                self.chunks += chunks
        except BaseException as error:
            self.error = error

    def interrupt(self) -> None:
        """Do what an interrupt in the consumer does, from another thread."""
        self.engine._closing = True
        self.engine._tell("interrupt")

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), "the run hangs"
