"""Reads what a query of DuckDB returns: over files, or over the tables of a DuckDB file.

Owns that the query only reads: an in-memory database that keeps nothing, with the file attached
read-only, no extension fetched from anywhere, and settings that the query cannot change
(https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import distinct

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_LOCKED = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # a table is a table, and no variable of ours
}
# Neither Parquet nor people have these types: their text says the same.
_AS_TEXT = frozenset({"interval", "bit", "union", "bignum", "variant", "time with time zone"})
# Arrow has no such whole numbers: DECIMAL(38, 0), which refuses what it cannot hold.
_AS_DECIMAL = frozenset({"hugeint", "uhugeint"})
_IN_USE = re.compile("Conflicting lock|already attached")
_NO_EXTENSION = re.compile(r"requires the extension|exists in the \w+ extension|existing extension")


@dataclass(frozen=True)
class DuckDBQuery:
    """One query. `file` is the database, None for none; relative paths are looked up in `folders`.

    `shown` is what messages call it.
    """

    query: str
    shown: str
    file: Path | None = None
    folders: Sequence[Path] = ()

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError as `read` does."""
        with self._opened() as relation:
            return distinct(relation.columns, self.shown)

    def read(self) -> pa.Table:
        """Return all rows.

        Raises:
            OndineError: the database or a file cannot be read, or the query is wrong, writes, or
                has two columns of one name.
        """
        import pyarrow as pa

        with self._opened() as relation:
            distinct(relation.columns, self.shown)
            names = relation.columns
            table = relation.project(_kept_types(relation)).to_arrow_table()
        for place, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type) and field.type.tz is not None:
                utc = pa.timestamp(field.type.unit, "UTC")  # not the zone of this machine
                table = table.set_column(place, field.name, table[field.name].cast(utc))
            elif pa.types.is_dictionary(field.type):
                text = table[field.name].cast(field.type.value_type)
                table = table.set_column(place, field.name, text)
        return table.rename_columns(names).replace_schema_metadata(None)

    def tables(self) -> list[str]:
        """Return none: DuckDB's own errors name the nearest ones."""
        return []

    @contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyRelation]:
        import duckdb

        try:
            with duckdb.connect(config=dict(_LOCKED)) as connection:
                self._prepare(connection)
                yield connection.sql(self._single(duckdb.extract_statements(self.query)))
        except duckdb.Error as error:
            raise OndineError(f"{self.shown}: {_readable(error)}") from None

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        if self.file is not None:
            connection.execute(f"attach {_text(str(self.file))} as source_file (read_only)")
            connection.execute("use source_file")
        folders = ",".join(map(str, self.folders))
        connection.execute(f"set file_search_path = {_text(folders)}")
        connection.execute("set lock_configuration = true")

    def _single(self, statements: Sequence[Any]) -> str:
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            found = ", ".join(kinds) or "nothing"
            raise OndineError(f"{self.shown}: the query must be one SELECT, and it is {found}.")
        return str(statements[0].query)


def _kept_types(relation: duckdb.DuckDBPyRelation) -> str:
    """Return a list of columns in which those have another type that cannot be kept."""
    columns = []
    for place, kind in enumerate(relation.types, start=1):
        target = ""
        if str(kind.id) in _AS_DECIMAL:
            target = "DECIMAL(38, 0)"
        elif str(kind.id) == "null" or _has_strange(kind):
            target = "VARCHAR"
        # by place: to DuckDB two names are one where they differ in capitals alone
        value = f"CAST(#{place} AS {target})" if target else f"#{place}"
        columns.append(f"{value} AS c{place}")
    return ", ".join(columns)


def _has_strange(kind: Any) -> bool:
    if str(kind.id) in _AS_TEXT:
        return True
    if str(kind.id) not in ("list", "array", "struct", "map"):
        return False
    parts = [part for _, part in kind.children if not isinstance(part, int)]  # int: a length
    return any(str(part.id) in _AS_DECIMAL or _has_strange(part) for part in parts)


def _readable(error: duckdb.Error) -> str:
    text = str(error).strip()
    if _NO_EXTENSION.search(text):
        what = text.splitlines()[0]
        return (
            f"{what} Extensions are not fetched: read addresses with source.path, other databases "
            "with source.database."
        )
    if _IN_USE.search(text):
        return f"{text} Close the program that has the file open, or read a copy of it."
    return text


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
