"""A Dagster instance in memory that is quick to make and to write to.

Dagster's own makes its tables for each test, and opens a connection for each event. This one
starts from a copy of tables that were made once, and keeps one connection to each store.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from uuid import uuid4

import dagster as dg
import sqlalchemy as sa
from dagster._core.instance.types import InstanceType
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import TemporaryLocalArtifactStorage
from dagster._core.storage.runs import InMemoryRunStorage
from sqlalchemy.engine import Connection
from sqlalchemy.pool import StaticPool


@cache
def _tables(store: type[InMemoryEventLogStorage] | type[InMemoryRunStorage]) -> sqlite3.Connection:
    """Return the empty database of a store, as Dagster makes it."""
    made, copy = store(), sqlite3.connect(":memory:", check_same_thread=False)
    made._held_conn.connection.driver_connection.backup(copy)
    made.dispose()
    return copy


class _Kept:
    """A database, and one connection to it on which threads take turns.

    SQLAlchemy drops the connection where an interrupt meets it; `held` keeps the database.
    """

    def __init__(self, tables: sqlite3.Connection) -> None:
        connect = partial(
            sqlite3.connect,
            f"file:{uuid4()}?mode=memory&cache=shared",
            uri=True,
            check_same_thread=False,
        )
        self.held = connect()
        tables.backup(self.held)
        self.engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        self._turn = threading.RLock()
        self._open: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._turn:
            if self._open is not None:
                yield self._open
                return
            with self.engine.begin() as connection:
                self._open = connection
                try:
                    yield connection
                finally:
                    self._open = None


class _Events(InMemoryEventLogStorage):
    def __init__(self) -> None:
        self._inst_data = None
        self._handlers = defaultdict(set)
        self._storage_id = 0
        self._kept = _Kept(_tables(InMemoryEventLogStorage))
        self._engine, self._held_conn = self._kept.engine, self._kept.held

    def has_table(self, table_name: str) -> bool:
        return True  # asked before each look at a partition; no table is ever missing

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._kept.transaction() as connection:
            yield connection


class _Runs(InMemoryRunStorage):
    def __init__(self) -> None:
        self._kept = _Kept(_tables(InMemoryRunStorage))
        self._engine, self._held_conn = self._kept.engine, self._kept.held

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept.transaction() as connection:
            yield connection


def in_memory() -> dg.DagsterInstance:
    """Return an empty instance, as `dg.DagsterInstance.ephemeral()` does."""
    return dg.DagsterInstance(
        instance_type=InstanceType.EPHEMERAL,
        local_artifact_storage=TemporaryLocalArtifactStorage(),
        run_storage=_Runs(),
        event_storage=_Events(),
        compute_log_manager=NoOpComputeLogManager(),
        run_coordinator=DefaultRunCoordinator(),
        run_launcher=SyncInMemoryRunLauncher(),
    )
