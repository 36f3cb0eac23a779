"""Who is alive: each process holds an exclusive lock on a file of its own, for life.

Dead means that the lock can be taken. No clock, no waiting, no false death of a suspended laptop.
Owns `ledger.d/`, T0 (start) and T3 (reap).
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import Database, open_private
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import Settlement
from ondine_dagster.ledger.settle import settle
from ondine_dagster.ledger.spend import moving

_p, _t = schema.processes.c, schema.attempts.c
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessLock:
    """The lock file of this process. Held until `release` or death."""

    def __init__(self, folder: Path) -> None:
        self.id = new_id()
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / self.id.hex()
        # locked under another name first: nobody may find the file unlocked
        temporary = self.path.with_suffix(".new")
        self._file = open_private(temporary, "xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.rename(temporary, self.path)

    def release(self) -> None:
        """Give the lock up and remove the file."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def leave_to_parent(self) -> None:
        """In a forked child: it must not keep the lock of a dead parent alive."""
        self._file.close()


def start(database: Database, lock: ProcessLock) -> None:
    """T0: register this process and reap the dead ones."""
    boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    row = {
        "id": lock.id,
        "host": socket.gethostname(),
        "boot_id": boot_id,
        "pid": os.getpid(),
        "started": now_ms(),
        "state": "alive",
    }
    with database.write() as connection:
        connection.execute(sa.insert(schema.processes), [row])
    reap(database, lock.path.parent, lock.id)


def finish(database: Database, lock: ProcessLock) -> None:
    """Mark this process dead, its open requests unknown, and release its lock.

    Where that cannot be written, the next process that starts does it.
    """
    try:
        with database.write() as connection:
            _bury(connection, lock.id)
    finally:
        lock.release()


def reap(database: Database, folder: Path, own: bytes) -> int:
    """T3: requests of dead processes become unknown. Returns how many processes were buried."""
    alive = sa.select(_p.id).where(_p.state == "alive", _p.id != own)
    with database.read() as connection:
        others = list(connection.execute(alive).scalars())
    buried = 0
    for process in others:
        buried += _reap_one(database, folder / process.hex(), process)
    return buried


def _reap_one(database: Database, path: Path, process: bytes) -> int:
    with ExitStack() as held:
        with suppress(FileNotFoundError):
            file = held.enter_context(open(path, "rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
        with database.write() as connection:
            _bury(connection, process)
        path.unlink(missing_ok=True)
    return 1


def _bury(connection: Connection, process: bytes) -> None:
    # the second condition lets SQLite use the partial index
    opened = sa.select(_t.id).where(
        _t.process == process,
        _t.state == "open",
        sa.literal_column("state IN ('open', 'unknown')"),
    )
    lost = connection.execute(opened).scalars().all()
    with moving(connection) as movements:
        settle(connection, [Settlement(attempt, "unknown") for attempt in lost], movements)
    connection.execute(sa.update(schema.processes).where(_p.id == process).values(state="dead"))
