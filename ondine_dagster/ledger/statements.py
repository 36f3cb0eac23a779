"""Statements that are compiled once and then go to the driver with tuples.

SQLAlchemy Core says what a statement is on each database. Its work per row (dicts, bind processors)
would cost more than the database itself; here a row is a tuple in the order of the statement's
parameters. Binary columns come back as the driver gives them: bytes from sqlite3 and psycopg 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler

_SIZES = (8, 64, 256, 1000)
Build = Callable[[str], sa.ClauseElement]


class Prepared:
    """A statement that is executed for many rows. `names` is the order of a row's values."""

    def __init__(self, names: str, build: Build) -> None:
        """`build` gets the name of the dialect and returns the statement."""
        self._names = names.split()
        self._build = build
        self._sql: dict[str, str] = {}

    def run(self, connection: Connection, rows: list[tuple[Any, ...]]) -> None:
        """Execute the statement for every row."""
        if rows:
            connection.exec_driver_sql(self._text(connection.dialect), rows)

    def _text(self, dialect: Dialect) -> str:
        sql = self._sql.get(dialect.name)
        if sql is None:
            sql, order = _compiled(self._build(dialect.name), dialect)
            assert order == self._names, f"{sql} takes {order}"
            self._sql[dialect.name] = sql
        return sql


class KeyedSelect:
    """A select over any number of keys, in a few sizes, so that the driver knows each by heart."""

    def __init__(self, build: Callable[[list[sa.BindParameter[Any]]], sa.ClauseElement]) -> None:
        """`build` gets the parameters that stand for keys and returns the statement."""
        self._build = build
        self._sql: dict[tuple[str, int], tuple[str, int]] = {}

    def rows(self, connection: Connection, keys: Iterable[bytes | str]) -> Iterator[Any]:
        """Yield the rows of all keys."""
        rest = iter(keys)
        while chunk := list(islice(rest, _SIZES[-1])):
            size = next(size for size in _SIZES if size >= len(chunk))
            chunk += chunk[-1:] * (size - len(chunk))
            sql, times = self._text(connection.dialect, size)
            yield from connection.exec_driver_sql(sql, tuple(chunk) * times).fetchall()

    def _text(self, dialect: Dialect, size: int) -> tuple[str, int]:
        """Return the statement for `size` keys and how often it takes them all."""
        found = self._sql.get((dialect.name, size))
        if found is None:
            names = [f"key_{index}" for index in range(size)]
            sql, order = _compiled(self._build([sa.bindparam(name) for name in names]), dialect)
            times = len(order) // size
            assert order == names * times, f"{sql} takes {order}"
            found = self._sql[dialect.name, size] = sql, times
        return found


def inserting(table: sa.Table, names: str, **literals: str) -> Prepared:
    """Return an insert of the columns `names`; `literals` are columns with a fixed SQL literal."""
    values: dict[str, Any] = {name: sa.bindparam(name) for name in names.split()}
    values |= {name: sa.literal_column(text) for name, text in literals.items()}
    return Prepared(names, lambda _: sa.insert(table).values(values))


def _compiled(statement: sa.ClauseElement, dialect: Dialect) -> tuple[str, Sequence[str]]:
    """Return SQL with positional parameters, and their names in order."""
    style = "qmark" if dialect.name == "sqlite" else "format"
    positional: Dialect = type(dialect)(paramstyle=style)  # type: ignore[call-arg]
    compiled = statement.compile(dialect=positional)
    assert isinstance(compiled, SQLCompiler)
    return str(compiled), list(compiled.positiontup or ())
