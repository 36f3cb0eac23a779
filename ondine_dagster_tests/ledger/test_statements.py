"""Statements that are compiled once: order of values, sizes of key lists, both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.pool import StaticPool

from ondine_dagster.ledger import lookup, reserve, settle, spend
from ondine_dagster.ledger.statements import KeyedSelect, Prepared, inserting

TABLE = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("name", sa.Text))
PREPARED = [
    found
    for module in (reserve, settle, spend)
    for found in vars(module).values()
    if isinstance(found, Prepared)
]
SELECTS = [
    found
    for module in (lookup, reserve, settle)
    for found in vars(module).values()
    if isinstance(found, KeyedSelect)
]


def connection() -> sa.Connection:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    TABLE.create(engine)
    return engine.connect()


def test_rows_go_in_the_order_of_the_names() -> None:
    with connection() as things:
        inserting(TABLE, "id name").run(things, [(1, "a"), (2, "b")])
        assert things.execute(sa.select(TABLE)).all() == [(1, "a"), (2, "b")]


def test_an_order_that_is_not_that_of_the_statement_is_a_bug() -> None:
    with connection() as things, pytest.raises(AssertionError, match="takes"):
        inserting(TABLE, "name id").run(things, [("a", 1)])


def test_nothing_to_write_writes_nothing() -> None:
    with connection() as things:
        inserting(TABLE, "id").run(things, [])
        assert things.execute(sa.select(TABLE)).all() == []


@pytest.mark.parametrize("count", [0, 1, 8, 9, 64, 65, 999, 1000, 1001, 2345])
def test_a_select_finds_every_key_once(count: int) -> None:
    select = KeyedSelect(lambda keys: sa.select(TABLE.c.id).where(TABLE.c.id.in_(keys)))
    with connection() as things:
        inserting(TABLE, "id name").run(things, [(number, "x") for number in range(5000)])
        wanted = range(1000, 1000 + count)
        found = [number for (number,) in select.rows(things, wanted)]  # type: ignore[arg-type]
    assert sorted(found) == list(wanted)


def test_there_are_statements_to_compile() -> None:
    assert len(PREPARED) >= 8
    assert len(SELECTS) >= 6


@pytest.mark.parametrize("prepared", PREPARED)
def test_every_statement_compiles_for_postgresql_with_the_same_order(prepared: Prepared) -> None:
    sql = prepared._text(PGDialect_psycopg())
    assert sql.count("%s") == len(prepared._names)


@pytest.mark.parametrize("select", SELECTS)
def test_every_select_compiles_for_postgresql(select: KeyedSelect) -> None:
    sql, times = select._text(PGDialect_psycopg(), 8)
    assert sql.count("%s") == 8 * times
