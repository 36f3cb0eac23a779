"""The ledger as the rest of the product sees it: one open object per process and file."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import lookup, processes, schema
from ondine_dagster.ledger.database import Database, LedgerUnavailable, reachable
from ondine_dagster.ledger.records import (
    Answer,
    Decision,
    KeyStates,
    Reservation,
    Settlement,
)
from ondine_dagster.ledger.writer import Done, Writer, wait_for


class Ledger:
    """Remembers every paid request. Thread-safe; open it with `open_ledger`."""

    def __init__(self, path: Path, *, any_key: bool = False) -> None:
        """`any_key`: open it also where it is sealed under another key, to rekey it."""
        # one file, one lock: also where it is reached through a link
        self.path = path.resolve()
        self._folder = self.path.with_name("ledger.d")
        with ExitStack() as undo:
            self.database = Database(self.path, any_key=any_key)
            undo.callback(self.database.close)
            with reachable(self._folder):
                self._lock = processes.ProcessLock(self._folder, self.database.sealing)
            undo.callback(self._lock.release)
            processes.start(self.database, self._lock, to_rekey=any_key)
            undo.pop_all()
        self._writer = Writer(self.database, self._lock.id, self._lock.spill)
        _living.add(self)

    @property
    def process(self) -> bytes:
        """Return the id of this process in the ledger."""
        return self._lock.id

    @property
    def broken(self) -> LedgerUnavailable | None:
        """Return why settlements wait outside of the ledger; None where it holds all of them.

        A run that ends like this must fail: its answers are safe, and no other process sees them.
        """
        return self._writer.broken

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

    def is_alone(self) -> bool:
        """Return whether no other process uses this ledger now."""
        self.reap()
        with self.database.read() as connection:
            return not processes.company(connection, self.process)

    def bind_dataset(
        self, name: str, declared_in: Path, answers: Callable[[], Path | None] = lambda: None
    ) -> None:
        """Tie a dataset's name to one declaration; a second one with that name is refused.

        Also refused, with OndineError, is a name that is new to this ledger while `answers` finds
        a folder with answers of it: the ledger was removed, and all would be paid again.

        The path is kept relative to the data folder, so that a project can be moved as a whole. A
        declaration that was moved or renamed (the old file is gone) takes its name along.
        """
        with self.database.write() as connection:
            _bind(connection, name, declared_in.resolve(), self.path, answers)

    def in_place(self) -> bool:
        """Return whether its files are still there: somebody may have removed the data folder."""
        return self.database.in_place() and self._lock.path.exists()

    def close(self) -> None:
        """Write what is queued and leave the list of living processes.

        Raises LedgerUnavailable where that cannot be written.
        """
        owed = self._writer.close()
        try:
            processes.finish(self.database, self._lock, owed)
        except LedgerUnavailable as error:
            raise self.broken or error from error
        finally:
            self.database.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        self._writer.leave_to_parent()
        self._lock.leave_to_parent()
        self.database.leave_to_parent()


def _bind(
    connection: Connection,
    name: str,
    declared_in: Path,
    ledger: Path,
    answers: Callable[[], Path | None],
) -> None:
    table, base = schema.datasets, ledger.parent
    known = connection.execute(sa.select(table.c.path).where(table.c.name == name)).scalar()
    relative = os.path.relpath(declared_in, base)
    if known is None:
        if (folder := answers()) is not None:
            raise OndineError(
                f"The ledger {ledger} knows nothing of dataset {name}, but {folder} holds answers "
                "that were paid for: the ledger was removed or replaced, and without it they would "
                "be paid again. Restore it from a backup; or remove that folder, and all is asked "
                "and paid anew."
            )
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
_living: weakref.WeakSet[Ledger] = weakref.WeakSet()
_of_parents: list[Ledger] = []


def open_ledger(path: Path) -> Ledger:
    """Return this process's ledger for `path`, opened once.

    A forked child opens its own: locks and connections of the parent are not usable in it. Where
    the files were removed, answers would be written to nowhere: then it is opened anew.
    """
    path = path.resolve()
    with _open_lock:
        if path in _open and not _open[path].in_place():
            with suppress(OndineError):
                _open.pop(path).close()
        if path not in _open:
            _open[path] = Ledger(path)
        return _open[path]


def close_ledger(path: Path) -> None:
    """Close this process's ledger for `path`, where it is open."""
    with _open_lock:
        ledger = _open.pop(path.resolve(), None)
    if ledger is not None:
        ledger.close()


def _start_anew() -> None:
    """In a forked child: the parent's ledgers are kept, untouched, so that none is ever closed."""
    global _open_lock
    _open_lock = threading.Lock()  # the old one may be held by a thread that is not here
    _open.clear()
    for ledger in list(_living):
        ledger.leave_to_parent()
        _of_parents.append(ledger)
    _living.clear()


os.register_at_fork(after_in_child=_start_anew)
