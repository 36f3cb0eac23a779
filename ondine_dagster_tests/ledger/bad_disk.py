"""A ledger that cannot be written for a while, as SQLite itself says it."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from ondine_dagster.ledger import database as module
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Reservation
from ondine_dagster.ledger.sealing import sealing
from ondine_dagster.ledger.spill import Lines, Spill, read
from ondine_dagster_tests.ledger.builders import go, request

if TYPE_CHECKING:
    from ondine_dagster.simulator import Simulator

IN_FLIGHT = 8  # the concurrency of a run that meets `unwritable_in_flight`
_CHARGED_BEFORE = 20


@contextmanager
def full(ledger: Ledger) -> Iterator[None]:
    """Let the file have no more pages. An answer needs room: its text must be long."""
    with _with_pragma(ledger, "max_page_count=1"):  # never below what it has
        yield


@contextmanager
def read_only(ledger: Ledger) -> Iterator[None]:
    """Refuse every write, as after a remount; root may write to a file without rights."""
    with _with_pragma(ledger, "query_only=ON"):
        yield


@contextmanager
def locked(ledger: Ledger) -> Iterator[None]:
    """Let another program hold the file."""
    browser = sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    browser.execute("BEGIN IMMEDIATE")
    try:
        with patch.object(module, "_BUSY_SECONDS", 0.001):
            _reconnect(ledger)
            yield
    finally:
        browser.execute("ROLLBACK")
        browser.close()
    _reconnect(ledger)


@contextmanager
def limited(ledger: Ledger) -> Iterator[None]:
    """Let the system refuse what makes the WAL larger: a quota, for this process."""
    size = Path(f"{ledger.path}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ledger.database.read() as reader:  # while it is open, no other empties the WAL
        reader.exec_driver_sql("SELECT count(*) FROM attempts").all()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


UNWRITABLE: dict[str, Callable[[Ledger], AbstractContextManager[None]]] = {
    "full": full,
    "read-only": read_only,
    "locked": locked,
    "limited": limited,
}


@contextmanager
def unwritable_in_flight(simulator: Simulator, ledger: Ledger, how: str) -> Iterator[None]:
    """Take the ledger away in the middle of a run, while all it may ask at once is in flight."""
    with ExitStack() as outage:

        def begin() -> None:
            simulator.bill.wait_for(lambda totals: totals.charged >= _CHARGED_BEFORE)
            simulator.hold()
            simulator.bill.wait_for(lambda totals: totals.in_flight == IN_FLIGHT)
            outage.enter_context(UNWRITABLE[how](ledger))
            simulator.release()

        waiting = threading.Thread(target=begin)
        waiting.start()
        yield
        waiting.join()


def die(ledger: Ledger) -> None:
    """Let go of what the system takes from a process that dies, and of nothing else."""
    ledger._writer.close()
    ledger._lock._file.close()
    ledger.database.close()


def reserved(ledger: Ledger, *names: object) -> list[Reservation]:
    return [go(ledger, request(name)) for name in names]


def names_in(path: Path) -> list[str]:
    """Return the kinds of files in `ledger.d`: lock files have no suffix."""
    return sorted(file.suffix for file in (path.parent / "ledger.d").iterdir())


def content(spill: Spill) -> Lines:
    with open(spill.path, "rb") as file:
        return read(file, sealing())


@contextmanager
def _with_pragma(ledger: Ledger, pragma: str) -> Iterator[None]:
    """Set it on every connection within the block: after an error there is a new one."""
    prepare = module._prepare

    def prepare_badly(connection: sqlite3.Connection) -> None:
        prepare(connection)
        connection.execute(f"PRAGMA {pragma}")

    with patch.object(module, "_prepare", prepare_badly):
        _reconnect(ledger)
        yield
    _reconnect(ledger)


def _reconnect(ledger: Ledger) -> None:
    if ledger.database._lock_file.closed:
        return
    with ledger.database._exclusive():
        ledger.database._disconnect()
