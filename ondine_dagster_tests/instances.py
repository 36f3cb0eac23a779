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
from functools import cache

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
def _tables(store: type[InMemoryEventLogStorage] | type[InMemoryRunStorage]) -> bytes:
    """Return the empty database of a store, as Dagster makes it."""
    made = store()
    try:
        empty: bytes = made._held_conn.connection.driver_connection.serialize()
        return empty
    finally:
        made.dispose()


class _Kept:
    """One connection, on which threads take turns."""

    def __init__(self, tables: bytes) -> None:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            connection.deserialize(tables)
            connection.execute("PRAGMA foreign_keys=ON")
            return connection

        self.engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        self.connection = self.engine.connect()
        self._turn = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._turn:
            if self.connection.in_transaction():
                yield self.connection
            else:
                with self.connection.begin():
                    yield self.connection


class _Events(InMemoryEventLogStorage):
    def __init__(self) -> None:
        self._inst_data = None
        self._handlers = defaultdict(set)
        self._storage_id = 0
        self._kept = _Kept(_tables(InMemoryEventLogStorage))
        self._engine, self._held_conn = self._kept.engine, self._kept.connection

    def has_table(self, table_name: str) -> bool:
        return True  # asked before each look at a partition; no table is ever missing

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._kept.transaction() as connection:
            yield connection


class _Runs(InMemoryRunStorage):
    def __init__(self) -> None:
        self._kept = _Kept(_tables(InMemoryRunStorage))
        self._engine, self._held_conn = self._kept.engine, self._kept.connection

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
