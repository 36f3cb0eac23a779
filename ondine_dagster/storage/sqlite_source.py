"""Reads what a query of SQLite returns. A column has the type of its values, as SQLite has it.

The file is opened read-only (https://www.sqlite.org/uri.html): nothing is created, nothing written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import distinct
from ondine_dagster.storage.plain_values import table_of

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = (
    "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%' "
    "order by name"
)


@dataclass(frozen=True)
class SQLiteQuery:
    """One query of the database `file`; `shown` is what messages call it."""

    query: str
    shown: str
    file: Path

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError as `read` does."""
        with self._opened() as cursor:
            return self._names(cursor)

    def read(self) -> pa.Table:
        """Return all rows.

        Raises:
            OndineError: the file cannot be read, the query is wrong or writes, two columns have one
                name, or a column holds blobs and other values.
        """
        with self._opened() as cursor:
            names = self._names(cursor)
            rows = cursor.fetchall()
        columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        for name, values in columns.items():
            kinds = {type(value) for value in values if value is not None}
            if bytes in kinds and len(kinds) > 1:
                raise OndineError(
                    f"{self.shown}: column {name!r} holds blobs and other values, and a column "
                    f"has one type. Say which in a query: select cast({name} as text) as {name}."
                )
        return table_of(columns)

    def tables(self) -> list[str]:
        """Return the names of the tables and views that there are."""
        with SQLiteQuery(_TABLES, self.shown, self.file)._opened() as cursor:
            return [name for (name,) in cursor]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            address = f"file:{quote(str(self.file))}?mode=ro"
            with closing(sqlite3.connect(address, uri=True)) as connection:
                yield connection.execute(self.query)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise OndineError(f"{self.shown}: {str(error).rstrip('.')}.") from None

    def _names(self, cursor: Any) -> list[str]:
        if cursor.description is None:
            raise OndineError(f"{self.shown}: the query must be one SELECT, and it is another one.")
        return distinct([column[0] for column in cursor.description], self.shown)
