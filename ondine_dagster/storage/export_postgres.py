"""Exports into a table of PostgreSQL, through COPY.

Owns which type becomes which (https://www.postgresql.org/docs/current/datatype.html) and what is
refused because PostgreSQL would lose it. Lists and structs become jsonb, bytes bytea; a time with a
zone keeps its instant, not its zone; durations become text.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage.export_file import json_text
from ondine_dagster.storage.export_table import STAGING, Changes, TableSink, quoted
from ondine_dagster.storage.postgres_source import connected
from ondine_dagster.storage.row_keys import plain_values

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_LONGEST_NAME = 63  # bytes: PostgreSQL cuts longer ones silently
_COLUMNS = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_ONE_EXPORT_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class PostgresTable(TableSink):
    """A table of PostgreSQL. Exports into it wait for one another."""

    def __init__(
        self, url: DatabaseUrl, table: str, schema: pa.Schema, mode: Mode, key: Sequence[str]
    ) -> None:
        """Connect; raises OndineError where that fails, or a name is too long."""
        super().__init__(url.shown, table, mode, key)
        for name in (*table.split(".", 1), *schema.names):
            if len(name.encode()) > _LONGEST_NAME:
                raise OndineError(
                    f"{self.shown}: the name {name!r} is longer than the {_LONGEST_NAME} bytes "
                    "that PostgreSQL keeps. Give the column another name."
                )
        self._url = url
        self._stack = ExitStack()
        try:
            with self._readable_errors():
                self._connection = self._stack.enter_context(_without_commit(url))
                self._cursor = self._connection.cursor()
                self._cursor.execute(_ONE_EXPORT_AT_A_TIME, (self._table,))
            declared = ", ".join(f"{quoted(one.name)} {_type(one.type)}" for one in schema)
            self.run(f"CREATE TEMP TABLE {STAGING} ({declared}) ON COMMIT DROP")
        except BaseException:
            self.abort()
            raise

    def write(self, rows: pa.Table) -> None:
        """Add rows to the staging table; raises OndineError for what would be lost."""
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        columns = [self._column(rows[name], name) for name in rows.column_names]
        table = pa.Table.from_arrays(columns, names=rows.column_names)
        stream = io.BytesIO()
        # "needed" quotes every text and leaves NULL empty, which is how COPY tells '' from NULL
        options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
        pa_csv.write_csv(table, stream, options)
        with (
            self._readable_errors(),
            self._cursor.copy(f"COPY {STAGING} FROM STDIN (FORMAT csv)") as copy,
        ):
            copy.write(stream.getbuffer())

    def commit(self) -> Changes:
        """Merge and make it durable; return what changed."""
        changes = self.merge()
        with self._readable_errors():
            self._connection.commit()
        return changes

    def abort(self) -> None:
        """Close the connection, which takes back what was not committed."""
        self._stack.close()

    def columns(self, *names: str) -> dict[str, str]:
        """Return the types of a table's columns by name, empty where there is no such table."""
        with self._readable_errors():
            named = ".".join(map(quoted, names))
            return dict(self._cursor.execute(_COLUMNS, (named,)).fetchall())

    def run(self, statement: str) -> int:
        """Run a statement; return how many rows it touched."""
        with self._readable_errors():
            return self._cursor.execute(statement.encode()).rowcount

    def _readable_errors(self) -> AbstractContextManager[None]:
        return _readable(self._url, self.shown)

    def _column(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = column.type
        if pa.types.is_timestamp(kind):
            try:
                return column.cast(pa.timestamp("us", kind.tz))
            except pa.ArrowInvalid:
                raise OndineError(
                    f"{self.shown}: column {name!r} has nanoseconds, and PostgreSQL keeps "
                    "microseconds. Export to Parquet, or round them in the source."
                ) from None
        if pa.types.is_dictionary(kind):
            return self._column(column.cast(kind.value_type), name)
        if _is_plain(kind):
            return column
        texts = column if pa.types.is_string(kind) else _as_text(column)
        if pc.any(pc.match_substring(texts, "\0")).as_py():
            raise OndineError(
                f"{self.shown}: column {name!r} holds the character NUL (U+0000), which PostgreSQL "
                "does not store. Remove it in the source."
            )
        return texts


def reach(url: DatabaseUrl) -> None:
    """Connect and do nothing; raises OndineError, without secrets, where that fails."""
    with _readable(url, url.shown), _without_commit(url):
        pass


@contextmanager
def _readable(url: DatabaseUrl, shown: str) -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise OndineError(f"{shown}: {url.scrubbed(error)}") from None


@contextmanager
def _without_commit(url: DatabaseUrl) -> Iterator[psycopg.Connection[Any]]:
    """Connect; what is not committed at the end is taken back."""
    with connected(url) as connection:
        yield connection
        connection.rollback()


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether Arrow writes it as PostgreSQL reads it."""
    import pyarrow as pa

    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(one(kind) for one in (*known, pa.types.is_date, pa.types.is_time))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return bytes as PostgreSQL reads them, nested values as JSON, all else as text."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        texts = [None if value is None else f"\\x{value.hex()}" for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    nested = pa.types.is_nested(kind)
    texts = [
        json_text(value) if nested and value is not None else value
        for chunk in column.chunks
        for value in plain_values(chunk)
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _type(kind: pa.DataType) -> str:
    import pyarrow as pa

    is_ = pa.types
    if is_.is_dictionary(kind):
        return _type(kind.value_type)
    if is_.is_decimal(kind):
        return f"numeric({kind.precision}, {kind.scale})"
    if is_.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamptz"
    if is_.is_nested(kind):
        return "jsonb"
    if is_.is_integer(kind):
        return _integer(kind)
    return {
        "bool": "boolean",
        "halffloat": "real",
        "float": "real",
        "double": "double precision",
        "date32[day]": "date",
        "date64[ms]": "date",
        "binary": "bytea",
        "large_binary": "bytea",
    }.get(str(kind), "time" if is_.is_time(kind) else "text")


def _integer(kind: pa.DataType) -> str:
    """Return the smallest type that holds all of them."""
    bits = kind.bit_width + str(kind).startswith("uint")
    kinds = ((16, "smallint"), (32, "integer"), (64, "bigint"))
    return next((name for width, name in kinds if bits <= width), "numeric(20)")
