"""The schema: one truth in schema.py, migrations that lead there, and indexes that are used."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ondine_dagster.ledger import database, lookup, schema, unknowns
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster_tests.ledger.builders import rows


def test_the_migrations_make_the_schema_as_alembic_sees_it(ledger: Ledger) -> None:
    with ledger.database.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_the_schema_to_the_letter(ledger: Ledger) -> None:
    """Alembic does not compare conditions of indexes, WITHOUT ROWID and the like."""
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        wanted = statements(connection)
    with ledger.database.read() as connection:
        found = statements(connection)
    del found["alembic_version"]
    assert found == wanted


def statements(connection: sa.Connection) -> dict[str, str]:
    """Return the statement of each table and index, however its lines are broken."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL")
    return {name: re.sub(r"\s+", "", sql) for name, sql in found}


def test_the_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [database.HEAD]


def test_money_is_never_stored_as_a_float(ledger: Ledger) -> None:
    for table in schema.metadata.tables.values():
        for column in table.columns:
            assert not isinstance(column.type, sa.Numeric | sa.Float), column


@pytest.mark.parametrize(
    ("index", "statement"),
    [
        ("asks_open", lookup._standing([sa.bindparam("k")])),
        ("asks_unknown", lookup._standing([sa.bindparam("k")])),
        ("answers_current", lookup._answers([sa.bindparam("k")])),
    ],
)
def test_look_ups_use_the_partial_indexes(
    ledger: Ledger, index: str, statement: sa.ClauseElement
) -> None:
    """A table of ten million answers must not be searched for what is open."""
    sql = str(statement.compile(dialect=sa.create_engine("sqlite://").dialect))
    count = sql.count("?")
    plan = rows(ledger.database, f"EXPLAIN QUERY PLAN {sql}", *[b"k"] * count)
    assert index in str(plan)
    assert "SCAN a" not in str(plan)


def test_unknown_requests_are_found_through_their_index(ledger: Ledger) -> None:
    seen: list[str] = []
    with ledger.database.read() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(seen.append)
        unknowns.unknown_attempts(connection, "reviews")
        driver.set_trace_callback(None)
    (select,) = [sql for sql in seen if "FROM attempts" in sql]
    plan = rows(ledger.database, f"EXPLAIN QUERY PLAN {select}")
    assert "attempts_unsettled" in str(plan)
