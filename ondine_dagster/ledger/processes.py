"""Who is alive: each process holds an exclusive lock on a file of its own, for life.

Dead means that the lock can be taken. No clock, no waiting, no false death of a suspended laptop.
The file is the spill of its process as well: whoever buries the process takes in what stands there.
Owns `ledger.d/`, T0 (start) and T3 (reap).
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema, spill
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import Database, open_private
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import Settlement
from ondine_dagster.ledger.sealing import Sealing, refuse_while_rekeyed
from ondine_dagster.ledger.settle import settle
from ondine_dagster.ledger.spend import moving
from ondine_dagster.wording import plural

_p, _t = schema.processes.c, schema.attempts.c
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


class ProcessLock:
    """The lock file of this process, which is its spill. Held until `release` or death."""

    def __init__(self, folder: Path, sealing: Sealing) -> None:
        """Raises OSError where there is no room for a spill: nothing was paid yet."""
        self.id = new_id()
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / self.id.hex()
        # locked under another name first: nobody may find the file unlocked
        temporary = self.path.with_suffix(".new")
        self._file = open_private(temporary, "xb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.spill = spill.Spill(self.path, self._file, sealing)
            os.rename(temporary, self.path)
        except BaseException:
            temporary.unlink()
            self._file.close()
            raise

    def release(self) -> None:
        """Give the lock up. A file that holds settlements stays for the next process."""
        if self.spill.empty:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def remove(self) -> None:
        """Remove the file: what stands in it is in the ledger."""
        self.path.unlink(missing_ok=True)

    def leave_to_parent(self) -> None:
        """In a forked child: it must not keep the lock of a dead parent alive."""
        self._file.close()


def start(database: Database, lock: ProcessLock, *, to_rekey: bool = False) -> None:
    """T0: register this process and reap the dead ones.

    Raises OndineError while the ledger is rekeyed, unless it is opened `to_rekey`.
    """
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
        if not to_rekey:
            refuse_while_rekeyed(connection)
        connection.execute(sa.insert(schema.processes), [row])
    reap(database, lock.path.parent, lock.id)


def company(connection: Connection, own: bytes) -> int:
    """Return how many other processes are in the list of the living."""
    others = sa.select(sa.func.count()).where(_p.state == "alive", _p.id != own)
    found: int = connection.execute(others).scalar_one()
    return found


def finish(database: Database, lock: ProcessLock, owed: Sequence[Settlement]) -> None:
    """Write what is owed, mark this process dead, its open requests unknown; release its lock.

    Where that cannot be written, the next process that starts does it.
    """
    try:
        with database.write() as connection:
            refused = _bury(connection, lock.id, owed)
        if refused:
            lock.spill.set_aside(refused)
        lock.remove()
    finally:
        lock.release()


def reap(database: Database, folder: Path, own: bytes) -> int:
    """T3 for every dead process. Returns how many were buried."""
    alive = sa.select(_p.id).where(_p.state == "alive", _p.id != own)
    with database.read() as connection:
        others = list(connection.execute(alive).scalars())
    buried = 0
    for process in others:
        buried += _reap_one(database, folder / process.hex(), process)
    return buried


def _reap_one(database: Database, path: Path, process: bytes) -> int:
    with ExitStack() as held:
        lines = spill.Lines()
        with suppress(FileNotFoundError):
            file = held.enter_context(open(path, "rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            lines = spill.read(file, database.sealing)
        with database.write() as connection:
            refused = _bury(connection, process, lines.settlements)
        if lines.damaged or refused:
            _keep_aside(path, lines, refused)
        else:
            path.unlink(missing_ok=True)
    return 1


def _keep_aside(path: Path, lines: spill.Lines, refused: Sequence[Settlement]) -> None:
    """Keep a spill that went into the ledger only in part."""
    aside = path.with_suffix(".damaged")
    with suppress(FileNotFoundError):  # another process was as quick, and said so
        os.rename(path, aside)
        if lines.damaged:
            _log.warning(
                "%s of %s cannot be read: answers that stood there may be asked, and paid, "
                "again. %s went into the ledger. The file is kept as %s.",
                plural(lines.damaged, "byte"),
                path,
                plural(len(lines.settlements) - len(refused), "other line"),
                aside,
            )
        if refused:
            spill.report_refused(refused, aside)


def _bury(connection: Connection, process: bytes, owed: Sequence[Settlement]) -> list[Settlement]:
    """T3: settle what is owed, then the rest is unknown. Returns what the ledger refuses."""
    refused = spill.take_in(connection, owed)
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
    return refused
