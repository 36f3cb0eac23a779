"""Engines in processes of their own, all on one ledger: runs without Dagster round them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.usage import cpu_of_threads, peak_mb
from ondine_dagster.ledger.rates import UNLIMITED, Rates

if TYPE_CHECKING:
    from ondine_dagster.engine.engine import Engine

_SENTENCE = "The parcel came late but every cup was whole, and my daughter loves the blue one. "
_BATCH_ROWS = 1000
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Work:
    """What every process does: ask `rows` rows that nobody else asks, or until it is stopped.

    A row has one to `sentences` sentences.
    """

    folder: Path
    base_url: str
    concurrency: int
    rows: int | None = None
    rates: Rates = UNLIMITED
    sentences: int = 3


@dataclass
class Done:
    """What one process did: seconds of wall clock, and of CPU, also by thread.

    `tasks` is the most tasks of the event loop at a time and `peak_mb` the most memory, each when
    a tenth of the rows had ended and at the end.
    """

    answered: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    threads: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tasks: list[int] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)


class Engines:
    """Processes that are ready to ask."""

    def __init__(self, running: Sequence[tuple[BaseProcess, Connection]]) -> None:
        self._running = running

    def go(self) -> None:
        """Let all begin."""
        for _, pipe in self._running:
            pipe.send("go")

    def stop(self) -> None:
        """Interrupt all, as Ctrl-C does; what is in flight ends."""
        for process, _ in self._running:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)

    def done(self) -> list[Done]:
        """Wait for the end of all."""
        return [pipe.recv() for _, pipe in self._running]


@contextmanager
def engines(work: Work, processes: int) -> Iterator[Engines]:
    """Start processes, and wait until each has imported everything and opened the ledger."""
    context = multiprocessing.get_context("spawn")
    running: list[tuple[BaseProcess, Connection]] = []
    with ExitStack() as stack:
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(theirs, work, number), daemon=True)
            process.start()
            theirs.close()  # else nobody would hear of its death
            stack.callback(process.join)
            stack.callback(process.terminate)
            running.append((process, ours))
        for _, pipe in running:
            pipe.recv()
        yield Engines(running)


def _run(pipe: Connection, work: Work, number: int) -> None:
    # here: the process that starts this one must stay small
    from ondine_dagster_tests.engine.harness import Harness

    threading.Thread(target=_end_with_parent, daemon=True).start()
    done = Done(threads=cpu_of_threads())
    with closing(Harness(work.folder, work.base_url)) as harness:
        engine = harness.engine(concurrency=work.concurrency, rates=work.rates)
        pipe.send("ready")
        pipe.recv()
        wall, cpu = time.perf_counter(), time.process_time()
        with suppress(KeyboardInterrupt):
            _consume(engine, work, number, done)
        done.wall, done.cpu = time.perf_counter() - wall, time.process_time() - cpu
    pipe.send(done)


def _end_with_parent() -> None:
    """Else it would wait for minutes for a provider that is gone as well."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _consume(engine: Engine, work: Work, number: int, done: Done) -> None:
    from ondine_dagster.engine.rows import Outcome
    from ondine_dagster_tests.engine.harness import Row, feeds, question

    def rows() -> Iterator[Row]:
        for n in count() if work.rows is None else range(work.rows):
            text = f"[[token={number}-{n}]] " + _SENTENCE * (1 + n % work.sentences)
            yield question(text, f"row-{n}")

    def sample() -> None:
        done.tasks.append(tasks.most)
        done.peak_mb.append(peak_mb())

    tasks = _Tasks(engine)
    with tasks, closing(engine.run(feeds(rows(), batch_rows=_BATCH_ROWS))) as chunks:
        for chunk in chunks:
            done.answered += sum(row.outcome is Outcome.ANSWERED for row in chunk.outcomes)
            if not done.tasks and work.rows and 10 * done.answered >= work.rows:
                sample()
    sample()


class _Tasks:
    """Counts the tasks of an engine's loop, ten times a second."""

    def __init__(self, engine: Engine) -> None:
        self.most = 0
        self._engine = engine
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, name="tasks")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            if (loop := self._engine._loop) is not None:
                self.most = max(self.most, len(asyncio.all_tasks(loop)))
