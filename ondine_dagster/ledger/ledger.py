"""The ledger as the rest of the product sees it: one open object per process and file."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import lookup, processes, schema
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.records import (
    Answer,
    Decision,
    KeyStates,
    Reservation,
    Settlement,
)
from ondine_dagster.ledger.writer import Done, Writer, wait_for
from ondine_dagster.spec.errors import OndineError


class Ledger:
    """Remembers every paid request. Thread-safe; open it with `open_ledger`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)
        self._folder = path.with_name("ledger.d")
        self._lock = processes.ProcessLock(self._folder)
        processes.start(self.database, self._lock)
        self._writer = Writer(self.database, self._lock.id)

    def submit(self, item: Reservation | Settlement, done: Done) -> None:
        """Queue an item for the next group commit; see `Writer.submit`."""
        self._writer.submit(item, done)

    def reserve(self, item: Reservation) -> Decision:
        """Reserve and wait until it is durable."""
        (decision,) = wait_for(self._writer.submit, [item])
        assert isinstance(decision, Decision)
        return decision

    def settle(self, item: Settlement) -> None:
        """Settle and wait until it is durable."""
        wait_for(self._writer.submit, [item])

    def settle_all(self, items: Sequence[Settlement]) -> None:
        """Settle together and wait until all are durable."""
        wait_for(self._writer.submit, items)

    def look_up(self, keys: Collection[bytes], ceiling: int) -> dict[bytes, Answer]:
        """Return the stored answers that serve questions with this ceiling."""
        with self.database.read() as connection:
            found = lookup.look_up(connection, keys)
        return {key: answer for key, answer in found.items() if lookup.usable(answer, ceiling)}

    def key_states(self, keys: Collection[bytes]) -> KeyStates:
        """Return which keys are answered by now and which somebody is still asking."""
        with self.database.read() as connection:
            return lookup.key_states(connection, keys)

    def reap(self) -> int:
        """Bury processes that died; their open requests become unknown."""
        return processes.reap(self.database, self._folder, self._lock.id)

    def bind_dataset(self, name: str, declared_in: Path) -> None:
        """Tie a dataset's name to one declaration; a second one with that name is refused.

        The path is kept relative to the data folder, so that a project can be moved as a whole. A
        declaration that was moved or renamed (the old file is gone) takes its name along.
        """
        with self.database.write() as connection:
            _bind(connection, name, declared_in.absolute(), self.path.parent)

    def close(self) -> None:
        """Write what is queued and leave the list of living processes."""
        self._writer.close()
        processes.finish(self.database, self._lock)
        self.database.close()


def _bind(connection: Connection, name: str, declared_in: Path, base: Path) -> None:
    table = schema.datasets
    known = connection.execute(sa.select(table.c.path).where(table.c.name == name)).scalar()
    relative = os.path.relpath(declared_in, base)
    if known is None:
        connection.execute(sa.insert(table), [{"name": name, "path": relative}])
    elif known != relative:
        first = Path(os.path.normpath(base / known))
        if first.exists():
            raise OndineError(
                f"Two declarations are called `{name}`: {first} and {declared_in}. Their rows and "
                "money would be mixed. Rename one of them (`name:`)."
            )
        connection.execute(sa.update(table).where(table.c.name == name).values(path=relative))


_open: dict[Path, Ledger] = {}
_open_lock = threading.Lock()


def open_ledger(path: Path) -> Ledger:
    """Return this process's ledger for `path`, opened once.

    A forked child opens its own: locks and connections of the parent are not usable in it.
    """
    path = path.absolute()
    with _open_lock:
        if path not in _open:
            _open[path] = Ledger(path)
        return _open[path]


def close_ledger(path: Path) -> None:
    """Close this process's ledger for `path`, where it is open."""
    with _open_lock:
        ledger = _open.pop(path.absolute(), None)
    if ledger is not None:
        ledger.close()


os.register_at_fork(after_in_child=_open.clear)
