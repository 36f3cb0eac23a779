"""New databases in this process, without what alembic does for each of them again and again.

A new ledger is made by the statements of the first one, which the migrations made, as are those
of other processes. Dagster's migrations, which it reads for each store and each run, are read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import database

_SCHEMA = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY rowid"


class _Migrations:
    """The migrations, and the statements that do the same to an empty file."""

    def __init__(self) -> None:
        self._migrate = database._migrate
        self._statements: list[str] = []

    def __call__(self, connection: Connection, path: Path) -> None:
        is_new = not connection.exec_driver_sql(_SCHEMA).all()
        if is_new and self._statements:
            for statement in self._statements:
                connection.exec_driver_sql(statement)
            return
        self._migrate(connection, path)
        if is_new:
            self._statements = _statements(connection)


def _statements(connection: Connection) -> list[str]:
    """Return what makes the tables of this ledger; nothing where a table has rows of its own."""
    made = connection.exec_driver_sql(_SCHEMA).all()
    tables = [name for name, sql in made if sql.startswith("CREATE TABLE")]
    for name in tables:
        rows = connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
        if rows and name != "alembic_version":
            return []
    version = f"INSERT INTO alembic_version VALUES ('{database.HEAD}')"
    return ["BEGIN IMMEDIATE", *(sql for _, sql in made), version, "COMMIT"]


class _Scripts:
    """The folders of migrations that were read."""

    def __init__(self) -> None:
        self._read = ScriptDirectory.from_config
        self._known: dict[str | None, ScriptDirectory] = {}

    def __call__(self, config: Config) -> ScriptDirectory:
        folder = config.get_main_option("script_location")
        if folder not in self._known:
            self._known[folder] = self._read(config)
        return self._known[folder]


@pytest.fixture(scope="session", autouse=True)
def _quick_databases() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_migrate", _Migrations())
        patch.setattr(ScriptDirectory, "from_config", _Scripts())
        yield
