"""`ondine-dagster sql`: questions about lake and ledger, as a table or as CSV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ondine_dagster.cli.console import output
from ondine_dagster.cli.drawing import as_text, draw
from ondine_dagster.errors import OndineError
from ondine_dagster.settings import Settings, load_settings
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.ledger_tables import SCHEMA, ledger_table, mentioned_tables
from ondine_dagster.storage.views import add_table, connect, view_statements

if TYPE_CHECKING:
    import duckdb

_FETCHED_ROWS = 2000
_READING = frozenset({"EXPLAIN", "MULTI", "PRAGMA", "SELECT"})  # MULTI is what PIVOT becomes


def sql_command(query: str) -> None:
    """Answer a query: drawn on a terminal, CSV with a header elsewhere.

    Raises OndineError with DuckDB's words for a query that is wrong.
    """
    import duckdb

    settings = load_settings(Path.cwd())
    if not query.strip():
        raise OndineError('The query is empty. Write one, as in: sql "show all tables"')
    try:
        _refuse_writing(query)
        with open_database(settings, query) as database:
            answer = database.execute(query)
            if sys.stdout.isatty():
                draw(answer, output(wrapped=True))
            else:
                write_csv(answer, sys.stdout)
    except duckdb.Error as error:
        raise OndineError(_readable(error, settings)) from None
    except RuntimeError as error:
        if "interrupted" in str(error):  # what DuckDB makes of Ctrl-C
            raise KeyboardInterrupt from None
        raise


def _refuse_writing(query: str) -> None:
    """Refuse statements that would change the views of this one query, and nothing after it."""
    import duckdb

    for statement in duckdb.extract_statements(query):
        if statement.type.name not in _READING:
            raise OndineError(
                f"`sql` only reads, and this is a {statement.type.name} statement. "
                "`ondine-dagster sql --views` prints statements for a DuckDB of your own."
            )


def views_command() -> None:
    """Print the statements that make the lake's views in any DuckDB."""
    lake = Lake(load_settings(Path.cwd()).lake_root)
    for statement in view_statements(lake):
        click.echo(statement)


def open_database(settings: Settings, query: str) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB with the lake, and what `query` mentions of the ledger."""
    database = connect(Lake(settings.lake_root))
    for name in mentioned_tables(query):
        add_table(database, SCHEMA, name, ledger_table(settings.ledger_path, name))
    return database


def write_csv(answer: duckdb.DuckDBPyConnection, to: TextIO) -> None:
    """Write a header and all rows; NULL is an empty cell, the empty text is "" in quotes."""
    to.write(",".join(_csv_cell(column[0]) for column in answer.description) + "\n")
    while rows := answer.fetchmany(_FETCHED_ROWS):
        to.write("".join(",".join(map(_csv_cell, row)) + "\n" for row in rows))
    to.flush()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    text = as_text(value)
    if text == "" or any(special in text for special in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _readable(error: duckdb.Error, settings: Settings) -> str:
    text = str(error).strip()
    lake = Lake(settings.lake_root)
    if "does not exist" in text and not lake.root.exists():
        return f"{text}\nThere is no lake at {lake.root} yet: nothing was run with this data."
    return text
