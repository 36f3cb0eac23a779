"""Reads what a query of PostgreSQL returns, with the types that its columns have there.

Owns which type becomes which (https://www.postgresql.org/docs/current/datatype.html). Types that
Arrow has not, or not as exactly (json, uuid, intervals, numbers without a declared precision),
become the text in which PostgreSQL writes them: nothing is rounded, and no type depends on values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.storage.headers import distinct

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_FETCHED_ROWS = 5_000
_CONNECT_SECONDS = 10
_CURSOR = "ondine_dagster"
_DECLARATION = f'DECLARE "{_CURSOR}" CURSOR FOR '  # which stands before the query in its errors
_TABLES = (
    "select table_schema || '.' || table_name from information_schema.tables "
    "where table_schema not in ('pg_catalog', 'information_schema') order by 1"
)
# What text looks like must not depend on the server's settings, nor may a query write.
_SESSION = (
    "set transaction read only",
    "set local timezone to 'UTC'",
    "set local datestyle to 'ISO'",
    "set local intervalstyle to 'postgres'",
    "set local extra_float_digits to 1",
)


@dataclass(frozen=True)
class PostgresQuery:
    """One query of the server at `url`; `shown` is what messages call it."""

    query: str
    shown: str
    url: DatabaseUrl

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError as `read` does."""
        with self._opened() as cursor:
            return self._names(cursor)

    def read(self) -> pa.Table:
        """Return all rows.

        Raises:
            OndineError: the server cannot be reached or refuses, the query is wrong or writes, two
                columns have one name, or a value has no place in its type.
        """
        import pyarrow as pa

        with self._opened() as cursor:
            schema = pa.schema(list(zip(self._names(cursor), _types(cursor), strict=True)))
            batches = []
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                batches.append(self._batch(rows, schema))
        return pa.Table.from_batches(batches, schema)

    def tables(self) -> list[str]:
        """Return the names of the tables and views that there are, with their schemas."""
        with PostgresQuery(_TABLES, self.shown, self.url)._opened() as cursor:
            return [name for (name,) in cursor]

    @contextmanager
    def _opened(self) -> Iterator[psycopg.ServerCursor[Any]]:
        psycopg = _driver(self.shown)
        try:
            with connected(self.url) as connection:
                for statement in _SESSION:
                    connection.execute(statement)
                _read_as_text(connection)  # a cursor takes over what is said before it is made
                with connection.cursor(name=_CURSOR) as cursor:
                    cursor.execute(self.query.encode())
                    yield cursor
        except (psycopg.Error, UnicodeError) as error:
            words = self.url.scrubbed(error).replace(_DECLARATION, "")
            if isinstance(error, psycopg.DataError) and error.sqlstate is None:
                words += (  # the driver's, of a value that Python has not
                    ". Dates before the year 1 and after 9999 cannot be kept: cast the column to "
                    "text in a query."
                )
            raise OndineError(f"{self.shown}: {words}") from None

    def _names(self, cursor: psycopg.ServerCursor[Any]) -> list[str]:
        return distinct([column.name for column in cursor.description or ()], self.shown)

    def _batch(self, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
        import pyarrow as pa

        arrays = []
        for place, column in enumerate(schema):
            try:
                values = [row[place] for row in rows]
                is_decimal = pa.types.is_decimal(column.type)
                array = pa.array(values, pa.string() if is_decimal else column.type)
                arrays.append(array.cast(column.type))
            except (pa.ArrowException, OverflowError) as error:
                raise OndineError(
                    f"{self.shown}: column {column.name!r} cannot be kept as {column.type}: "
                    f"{error}. Cast it to text in a query."
                ) from None
        return pa.record_batch(arrays, schema=schema)


@contextmanager
def connected(url: DatabaseUrl) -> Iterator[psycopg.Connection[Any]]:
    """Connect in one transaction: committed at the end of the block, else rolled back.

    Raises:
        OndineError: the driver is not installed, or the URL is none to it.
        psycopg.Error: anything else; its words may hold secrets (`url.scrubbed`).
    """
    psycopg = _driver(url.shown)
    try:
        options = psycopg.conninfo.conninfo_to_dict(url.text)
    except psycopg.Error:  # its words quote the URL
        raise OndineError(
            f"{url.shown}: the URL cannot be read. Its options have to be those of libpq, and % "
            "in user and password is written %25."
        ) from None
    options = {"connect_timeout": _CONNECT_SECONDS, "client_encoding": "UTF8"} | options
    with psycopg.connect(**options) as connection:
        yield connection


def _driver(shown: str) -> Any:
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError:
        raise OndineError(
            f"{shown}: PostgreSQL needs the extra `postgres`: "
            "pip install 'ondine_dagster[postgres]'"
        ) from None
    return psycopg


def _known() -> Mapping[str, pa.DataType]:
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int2": pa.int16(),
        "int4": pa.int32(),
        "int8": pa.int64(),
        "float4": pa.float32(),
        "float8": pa.float64(),
        "text": pa.string(),
        "varchar": pa.string(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
        "bytea": pa.binary(),
    }


def _types(cursor: psycopg.ServerCursor[Any]) -> list[pa.DataType]:
    import pyarrow as pa
    from psycopg.postgres import types

    numeric = types["numeric"].oid
    known = {types[name].oid: kind for name, kind in _known().items()}
    known |= {types[name].array_oid: pa.list_(kind) for name, kind in _known().items()}
    return [
        _decimal(column)
        if column.type_code == numeric
        else known.get(column.type_code, pa.string())
        for column in cursor.description or ()
    ]


def _decimal(column: psycopg.Column) -> pa.DataType:
    """Return the type of a number with declared digits; text where there are none, or too many."""
    import pyarrow as pa

    digits, scale = column.precision, column.scale
    if digits is None or scale is None or not 0 <= scale <= digits <= 76:
        return pa.string()
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _read_as_text(connection: psycopg.Connection[Any]) -> None:
    from psycopg.postgres import types
    from psycopg.types.string import TextLoader

    for kind in types:
        if kind.name not in _known():
            connection.adapters.register_loader(kind.oid, TextLoader)
            connection.adapters.register_loader(kind.array_oid, TextLoader)
