"""The SQLite file of the ledger: opening, locking, transactions, migrations, checkpoints.

Every write happens inside `Database.write()`: one `BEGIN IMMEDIATE` under an exclusive file lock.
Without the lock one of eight writers starves, and a checkpoint by one connection while another
writes can corrupt a WAL (SQLite up to 3.51.2), so checkpoints happen under the lock only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.sealing import Sealing, bind_key, option, sealing

HEAD = "0005"
_MIGRATIONS = Path(__file__).with_name("migrations")
_CHECKPOINT_WAL_BYTES = 16 * 2**20
_BUSY_SECONDS = 30
_PAGES_AT_ONCE = 256  # a few ms
# so long others may read what is to leave the WAL
_READERS_SECONDS, _AGAIN_SECONDS = 10.0, 0.05
_FREE_SPACE = "Free space on its disk and run again; what was paid is kept."
_ADVICE = {
    "full": _FREE_SPACE,
    "no space": _FREE_SPACE,
    "quota": _FREE_SPACE,
    "too large": _FREE_SPACE,
    "disk i/o": "See whether its disk is full, over a quota or failing, mend that and run again; "
    "what was paid is kept.",
    "locked": "Another program holds it, a database browser perhaps: close that and run again.",
    "malformed": "Restore it from a backup: without it, what was paid would be paid again.",
    "not a database": "Restore it from a backup: without it, what was paid would be paid again.",
    "readonly": "Give yourself the right to write to the folder and the files in it.",
    "unable to open": "Give yourself the right to write to the folder and the files in it.",
    "permission": "Give yourself the right to write to the folder and the files in it.",
}
_NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph glusterfs lustre fuse.sshfs fuse.s3fs fuse.gcsfuse".split()
)


class LedgerUnavailable(OndineError):
    """The file of the ledger cannot be read or written now. What was paid is kept."""


class Database:
    """One open ledger file. Any thread may write and read; writes wait for one another."""

    def __init__(self, path: Path, *, any_key: bool = False) -> None:
        """Open it, made if there is none; `any_key`: also where it is sealed under another key.

        Raises OndineError and LedgerUnavailable.
        """
        self.path = path
        self.sealing = sealing()
        self._threads = threading.RLock()  # a flock does not keep threads of one process apart
        self._wal = f"{path}-wal"
        self._checkpoint_at = _CHECKPOINT_WAL_BYTES
        self._engine = _writer_engine(path, self.sealing)
        self._reader = reader_engine(path)
        self._connection: Connection | None = None
        with reachable(path):
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            refuse_network_file_system(path)
            self._lock_file = open_private(f"{path}.lock", "ab")
            try:
                with self._exclusive():
                    connection = self._connect()
                    _migrate(connection, path)
                    if not any_key:
                        bind_key(connection, path, self.sealing)
                self._file = _identity(path)
            except BaseException:
                self.close()
                raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one write transaction; durable (fsynced) when the block has ended.

        Raises LedgerUnavailable where the file cannot be written; then it is in doubt whether the
        transaction happened.
        """
        with self._exclusive():
            connection = self._connection or self._connect()
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException as error:
                _roll_back(connection)
                if isinstance(error, LedgerUnavailable):
                    self._disconnect()  # the next transaction starts from a clean connection
                raise
            self._checkpoint_if_large(connection)

    def compact(self) -> bool:
        """Give free pages back to the disk, piece by piece, and empty the WAL.

        Others write in between. Returns whether the WAL is empty: it stays while another program
        reads what stood there before. Raises LedgerUnavailable.
        """
        free = 1
        while free:
            with self.write() as connection:
                before = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
                connection.exec_driver_sql(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").close()
                free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
                free = 0 if free == before else free
        return self._emptied()

    def rewrite(self) -> bool:
        """Write the file anew, so that no page holds what stood there before; as `compact` does.

        It takes as much room again as the file has, and others wait for it.
        """
        with self._exclusive():
            (self._connection or self._connect()).exec_driver_sql("VACUUM").close()
        return self._emptied()

    def _emptied(self) -> bool:
        until = time.monotonic() + _READERS_SECONDS
        while True:
            with self._exclusive():
                emptied = self._checkpoint(self._connection or self._connect())
            if emptied or time.monotonic() > until:
                return emptied
            time.sleep(_AGAIN_SECONDS)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a short-lived read-only connection. Raises LedgerUnavailable."""
        with self._reader.connect() as connection:
            yield connection

    def in_place(self) -> bool:
        """Return whether the file that was opened is still the one at its path."""
        return _identity(self.path) == self._file

    def close(self) -> None:
        """Close the write connection and the lock file."""
        if self._lock_file.closed:
            return
        with self._exclusive():  # the last connection to close checkpoints
            self._disconnect()
        self._lock_file.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let the parent's lock go. The connection must never be touched."""
        self._lock_file.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._threads:
            with reachable(self.path):
                fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _connect(self) -> Connection:
        with reachable(self.path):
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(LedgerUnavailable):
                connection.close()

    def _checkpoint_if_large(self, connection: Connection) -> None:
        """Empty the WAL where it has grown; never wait for a reader that still needs it."""
        size = _size(self._wal)
        if size < _CHECKPOINT_WAL_BYTES:
            self._checkpoint_at = _CHECKPOINT_WAL_BYTES
        elif size >= self._checkpoint_at:
            self._checkpoint(connection)
            self._checkpoint_at = _size(self._wal) + _CHECKPOINT_WAL_BYTES

    def _checkpoint(self, connection: Connection) -> bool:
        """Empty the WAL, unless somebody reads it; return whether it is."""
        # the commit before it is durable, whatever happens here
        with suppress(LedgerUnavailable):
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            (busy, *_) = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
            return not busy
        return False


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Turn what the file system refuses within the block into LedgerUnavailable."""
    try:
        yield
    except OSError as error:
        raise _unavailable(path, "opened", str(error)) from error


def _explain_errors(engine: Engine, path: Path, doing: str) -> None:
    """Let failures of the file (full, locked, read-only, damaged) come as LedgerUnavailable."""

    def explain(context: ExceptionContext) -> LedgerUnavailable | None:
        error = context.sqlalchemy_exception
        if isinstance(error, OperationalError) or type(error) is DatabaseError:
            return _unavailable(path, doing, str(error.orig))
        return None  # the others are our own bugs

    sa.event.listen(engine, "handle_error", explain)


def _unavailable(path: Path, doing: str, reason: str) -> LedgerUnavailable:
    advice = next((text for part, text in _ADVICE.items() if part in reason.lower()), "")
    return LedgerUnavailable(f"The ledger {path} cannot be {doing}: {reason}. {advice}".strip())


def _roll_back(connection: Connection) -> None:
    # SQLite ends the transaction itself on some errors (disk full): then there is none left
    driver = connection.connection.driver_connection
    if driver is not None and driver.in_transaction:
        with suppress(LedgerUnavailable):
            connection.exec_driver_sql("ROLLBACK")


def open_private(path: str | Path, mode: str) -> IO[bytes]:
    """Open a file that only its owner may read, where it is new."""
    return open(path, mode, opener=partial(os.open, mode=0o600))


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def reader_engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write.

    They raise OndineError where no ledger is, LedgerUnavailable where it cannot be read. A ledger
    of an older version is brought up to date first.
    """
    current = False

    def connect() -> sqlite3.Connection:
        nonlocal current
        if not path.exists():
            raise OndineError(f"There is no ledger at {path} yet: nothing was run with this data.")
        if not current:
            _bring_up_to_date(path)
            current = True
        return sqlite3.connect(
            f"file:{_uri_path(path)}?mode=ro",
            uri=True,
            timeout=_BUSY_SECONDS,
            check_same_thread=False,
        )

    # hidden: the parameters are people's data, and errors end up in logs
    engine = sa.create_engine(
        "sqlite://",
        creator=connect,
        poolclass=NullPool,
        hide_parameters=True,
        execution_options=option(sealing()),
    )
    _explain_errors(engine, path, "read")
    return engine


def _bring_up_to_date(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{_uri_path(path)}?mode=ro", uri=True)) as connection:
        try:
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.Error:
            return  # locked, damaged or somebody else's: the query to come says it better
    if version != HEAD:
        Database(path).close()


def _uri_path(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _writer_engine(path: Path, used: Sealing) -> Engine:
    def connect() -> sqlite3.Connection:
        # only where there is none: to close a second descriptor of an open SQLite file would drop
        # the locks that this process holds on it
        with suppress(FileExistsError):
            open_private(path, "xb").close()
        # autocommit: our own BEGIN IMMEDIATE, since the driver's deferred one loses updates
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sa.create_engine(
        "sqlite://",
        creator=connect,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        execution_options=option(used),
    )
    _explain_errors(engine, path, "written")
    return engine


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only before the first table
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA cache_size=-32768")  # KiB; keys are random: the indexes are hot
    if sys.platform == "darwin":  # there fsync alone does not reach the platter
        connection.execute("PRAGMA fullfsync=ON")
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if mode != "wal" or synchronous != 2:
        raise OndineError(
            f"SQLite gave journal mode {mode}, synchronous {synchronous}: paid answers would not "
            "be durable. Put the data folder on a local disk."
        )


def _migrate(connection: Connection, path: Path) -> None:
    version = _version(connection)
    if version == HEAD:
        return
    # imported here: only a new or old ledger needs alembic
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        command.upgrade(config, HEAD)
        connection.exec_driver_sql("COMMIT")
    except CommandError as error:
        _roll_back(connection)
        raise OndineError(
            f"The ledger {path} was written by a newer version of ondine_dagster (schema "
            f"{version}, this version knows {HEAD}). Upgrade ondine_dagster."
        ) from error
    except BaseException:
        _roll_back(connection)
        raise


def _version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def refuse_network_file_system(path: Path) -> None:
    """Raise OndineError where `path` (its folder exists) would lie on a network file system."""
    kind = _file_system(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise OndineError(
            f"{path.parent} is on a network file system ({kind}), where SQLite's locks do not "
            "hold and money would be paid twice. Set ONDINE_DATA_DIR to a folder on a local disk."
        )


def _file_system(folder: Path) -> str | None:
    """Return the type of the mount that holds `folder`; None where the system does not tell."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return None
    best, kind = "", None
    resolved = f"{folder.resolve()}/"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        point, found = line.split()[1:3]
        point = point.replace("\\040", " ").rstrip("/") + "/"
        if resolved.startswith(point) and len(point) >= len(best):
            best, kind = point, found
    return kind
