"""A source that is a query: of a database by URL, or of DuckDB over files.

Owns which database is asked what, and in which order its rows stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.storage.duckdb_source import DuckDBQuery
from ondine_dagster.storage.located import NotWatchable, Piece
from ondine_dagster.storage.partitioning import FileRows
from ondine_dagster.storage.postgres_source import PostgresQuery
from ondine_dagster.storage.row_keys import canonical_json, plain_rows
from ondine_dagster.storage.sources import SourceNotFound, places
from ondine_dagster.storage.sql_text import in_fixed_order, tells_order
from ondine_dagster.storage.sqlite_source import SQLiteQuery
from ondine_dagster.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec import Source

_SHOWN_TABLES = 20


class _Query(Protocol):
    def columns(self) -> list[str]: ...
    def read(self) -> pa.Table: ...
    def tables(self) -> list[str]: ...


@dataclass(frozen=True)
class QuerySource:
    """The rows of one query. `url` is None for `source.sql`; `file` is that of the database.

    Relative paths in `source.sql` are looked up in `folders`.
    """

    source: Source
    url: DatabaseUrl | None
    file: Path | None
    folders: tuple[Path, ...]

    @property
    def shown(self) -> str:
        """The database and what is read of it; no password."""
        if self.url is None:
            return "source.sql"
        asked = "query" if self.source.table is None else f"table {self.source.table}"
        return f"{self.file or self.url.shown}, {asked}"

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError as `read` does."""
        return self._asked().columns()

    def read(self) -> tuple[pa.Table, list[FileRows]]:
        """Return all rows: in the order of the query's own ORDER BY, else by key or all values.

        Raises:
            OndineError: nobody answers, or not as a source has to be.
        """
        query = self._asked()
        try:
            table = query.read()
        except OndineError as error:
            raise OndineError(f"{error}{self._other_tables(query)}") from None
        if not tells_order(self._text()):
            table = in_fixed_order(table, self.source.key)
        return table, [FileRows(self.shown, self.shown, table.num_rows)]

    def pieces(self) -> list[Piece]:
        """Return what the watch query answers, else the database's files as they are now.

        Raises:
            NotWatchable: there is neither.
            OndineError: nobody answers.
        """
        if self.source.watch is not None:
            shown = self.shown.removesuffix(", query")
            answer = self._query(self.source.watch, f"{shown}, source.watch").read()
            return [Piece("watch", canonical_json(list(plain_rows(answer))), 0)]
        if self.file is None:
            raise NotWatchable(
                f"{self.shown} does not tell when it changes, so nothing is run. Declare a query "
                "that does as source.watch (select max(updated_at) ...), or use a schedule."
            )
        # what is written lately is in a file beside it: -wal of SQLite, .wal of DuckDB
        beside = [self.file, *(Path(f"{self.file}{ending}") for ending in ("-wal", ".wal"))]
        return [Piece.of_file(file) for file in beside if file.is_file()]

    def _text(self) -> str:
        text = self.source.sql or self.source.query
        if text is not None:
            return text
        parts = str(self.source.table).replace('"', '""').split(".")
        return "select * from " + ".".join(f'"{part}"' for part in parts)  # noqa: S608 (quoted)

    def _asked(self) -> _Query:
        return self._query(self._text(), self.shown)

    def _query(self, text: str, shown: str) -> _Query:
        if self.url is not None and self.url.kind == "postgresql":
            return PostgresQuery(text, shown, self.url)
        if self.url is not None and self.url.kind == "sqlite":
            assert self.file is not None
            return SQLiteQuery(text, shown, self.file)
        return DuckDBQuery(text, shown, self.file, self.folders)

    def _other_tables(self, query: _Query) -> str:
        """Return what tables there are, where the declared one is not among them."""
        try:
            known = query.tables() if self.source.table is not None else []
        except OndineError:
            return ""
        if not known or self.source.table in known:
            return ""
        return f" The tables and views there are: {listed(known, _SHOWN_TABLES)}."


def locate_query(
    source: Source, declared_in: Path, project_root: Path, environ: Mapping[str, str]
) -> QuerySource:
    """Return the query that a source declares; nobody is asked yet.

    Raises:
        OndineError: the environment variable holds no URL.
        SourceNotFound: the database is a file that is not there.
    """
    url = _url(source, environ)
    folders = tuple(one.parent for one in places("x", declared_in, project_root))
    if url is None or not url.path:
        return QuerySource(source, url, None, folders)
    tried = places(url.path, declared_in, project_root)
    file = next((one for one in tried if one.is_file()), None)
    if file is None:
        raise SourceNotFound(
            f"source.database: there is no file {url.path!r}. Tried: "
            f"{', '.join(map(str, tried))}. An absolute path needs four slashes: "
            f"{url.kind}:////path."
        )
    return QuerySource(source, url, file, folders)


def _url(source: Source, environ: Mapping[str, str]) -> DatabaseUrl | None:
    if source.database is not None:
        return DatabaseUrl.parse(source.database.get_secret_value())
    if source.database_variable is None:
        return None
    text = environ.get(source.database_variable, "")
    if not text:
        raise OndineError(
            f"{source.database_variable} is not set: source.database_variable takes the URL of "
            "the database from it"
        )
    try:
        return DatabaseUrl.parse(text)
    except ValueError as error:
        raise OndineError(f"{source.database_variable} {error}") from None
