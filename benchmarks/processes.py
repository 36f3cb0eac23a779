"""Several engines on one ledger against a server without latency, and what a commit takes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.engines import Done, Work, engines
from benchmarks.pairs import context, reservation
from benchmarks.quick_server import quick_server
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.writer import wait_for

_PROCESSES = (1, 2, 4)
_PAGE = b"\0" * 4096
_sync = getattr(os, "fdatasync", os.fsync)


def main(rows: int = 10_000, concurrency: int = 100, commits: int = 200) -> None:
    """`rows` are those of all processes together, `concurrency` is that of each."""
    print(f"\n## Processes on one ledger, {rows:,} rows at concurrency {concurrency} each\n")
    print("| processes | rows/s | times one process | CPU ms per row | of it ledger's writer |")
    print("|---|---|---|---|---|")
    alone = 0.0
    for processes in _PROCESSES:
        done = _measure(rows, concurrency, processes)
        rate = sum(one.answered for one in done) / max(one.wall for one in done)
        alone = alone or rate
        _row(done, rate, rate / alone)
    _print_commits(commits)


def _measure(rows: int, concurrency: int, processes: int) -> list[Done]:
    with tempfile.TemporaryDirectory() as folder, quick_server() as server:
        work = Work(Path(folder), server.base_url, concurrency, rows // processes)
        with engines(work, processes) as running:
            running.go()
            done = running.done()
    assert all(one.answered == work.rows for one in done)
    return done


def _row(done: Sequence[Done], rate: float, times: float) -> None:
    rows = sum(one.answered for one in done)
    cpu = sum(one.cpu for one in done)
    writer = sum(one.threads["ledger-writer"] for one in done)
    print(
        f"| {len(done)} | {rate:,.0f} | {times:.2f} | {1000 * cpu / rows:.3f} | "
        f"{1000 * writer / rows:.3f} |",
        flush=True,
    )


def _print_commits(count: int) -> None:
    """How long a commit takes: the disk's part of it, and how little a larger group adds."""
    with tempfile.TemporaryDirectory() as folder:
        synced = _sync_seconds(Path(folder) / "file", count)
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        groups = {group: _commit_seconds(ledger, group, count) for group in (1, 20, 200)}
        ledger.close()
    print("\n| commit | median ms | 95 % within ms | ms per request |")
    print("|---|---|---|---|")
    _print_times("4 KB and fdatasync, without a ledger", synced, 1)
    for group, seconds in groups.items():
        _print_times(f"ledger, {group} reservation{'s'[: group > 1]}", seconds, group)


def _sync_seconds(path: Path, count: int) -> list[float]:
    with path.open("wb", buffering=0) as file:

        def append() -> None:
            file.write(_PAGE)
            _sync(file.fileno())

        return _times(append, count)


def _commit_seconds(ledger: Ledger, group: int, count: int) -> list[float]:
    run = context()
    asked = iter([[reservation(run) for _ in range(group)] for _ in range(count)])
    return _times(lambda: wait_for(ledger.submit, next(asked)), count)


def _times(work: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def _print_times(name: str, seconds: list[float], group: int) -> None:
    median, late = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    each = 1000 * median / group
    print(f"| {name} | {1000 * median:.2f} | {1000 * late:.2f} | {each:.3f} |", flush=True)
