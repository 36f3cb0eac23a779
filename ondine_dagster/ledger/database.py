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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from ondine_dagster.spec.errors import OndineError

HEAD = "0001"
_MIGRATIONS = Path(__file__).with_name("migrations")
_CHECKPOINT_WAL_BYTES = 16 * 2**20
_NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph glusterfs lustre fuse.sshfs fuse.s3fs fuse.gcsfuse".split()
)


class Database:
    """One open ledger file. Any thread may write and read; writes wait for one another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_network_file_system(path)
        self._lock_file: IO[bytes] = open(f"{path}.lock", "ab")  # noqa: SIM115 (held for life)
        os.chmod(self._lock_file.name, 0o600)
        self._threads = threading.RLock()  # a flock does not keep threads of one process apart
        self._engine = _writer_engine(path)
        self._reader = reader_engine(path)
        try:
            with self._exclusive():
                self._connection = self._engine.connect()
                _migrate(self._connection, path)
        except sqlite3.DatabaseError as error:
            raise OndineError(f"The ledger {path} cannot be opened: {error}.") from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one write transaction; durable (fsynced) when the block has ended."""
        with self._exclusive():
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.exec_driver_sql("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._checkpoint_if_large()

    def reopen(self) -> None:
        """Replace the write connection after an error that left it in doubt."""
        self._connection.close()
        self._connection = self._engine.connect()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a short-lived read-only connection."""
        with self._reader.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close the write connection and the lock file."""
        self._connection.close()
        self._lock_file.close()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._threads:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _roll_back(self) -> None:
        # SQLite ends the transaction itself on some errors (disk full): then there is none left
        driver = self._connection.connection.driver_connection
        if driver is not None and driver.in_transaction:
            self._connection.exec_driver_sql("ROLLBACK")

    def _checkpoint_if_large(self) -> None:
        wal = Path(f"{self.path}-wal")
        if wal.exists() and wal.stat().st_size > _CHECKPOINT_WAL_BYTES:
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def reader_engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write and raise OndineError where no ledger is."""

    def connect() -> sqlite3.Connection:
        if not path.exists():
            raise OndineError(f"There is no ledger at {path} yet: nothing was run with this data.")
        return sqlite3.connect(
            f"file:{_uri_path(path)}?mode=ro", uri=True, timeout=30, check_same_thread=False
        )

    return sa.create_engine("sqlite://", creator=connect, poolclass=NullPool)


def _uri_path(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _writer_engine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        # autocommit: our own BEGIN IMMEDIATE, since the driver's deferred one loses updates
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=30, check_same_thread=False
        )
        os.chmod(path, 0o600)
        _prepare(connection)
        return connection

    return sa.create_engine(
        "sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only before the first table
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
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
        connection.exec_driver_sql("ROLLBACK")
        raise OndineError(
            f"The ledger {path} was written by a newer version of ondine_dagster (schema "
            f"{version}, this version knows {HEAD}). Upgrade ondine_dagster."
        ) from error
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def _version(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _refuse_network_file_system(path: Path) -> None:
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
