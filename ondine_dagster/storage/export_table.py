"""Exports into a table of a database: a staging table is filled, then merged in one transaction.

Owns what becomes of the rows that the table has already. `replace`: afterwards it holds the results
and nothing else. `update`: rows are known by their key; those that are there get the new values,
others are added, rows that the results do not have any more stay. `append`: only rows whose key is
not there yet are added. Columns of the table that an export does not know are left alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage.atomic import AbortedUnlessCommitted

if TYPE_CHECKING:
    import pyarrow as pa

STAGING = "_ondine_new_rows"


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of the table that an export added, overwrote and took out."""

    added: int
    overwritten: int = 0
    removed: int = 0


class TableSink(AbortedUnlessCommitted):
    """A table of a database, all of whose changes appear at once or not at all."""

    def __init__(self, shown: str, table: str, mode: Mode, key: Sequence[str]) -> None:
        """Name the table (`name` or `schema.name`), and the columns that name a row."""
        self.shown = f"{shown}, table {table}"
        self._names = table.split(".", 1)
        self._table = ".".join(map(quoted, self._names))
        self._mode = mode
        self._key = key

    @abstractmethod
    def write(self, rows: pa.Table) -> None:
        """Add rows to the staging table."""

    @abstractmethod
    def commit(self) -> Changes:
        """Merge and make it durable; return what changed."""

    @abstractmethod
    def columns(self, *names: str) -> dict[str, str]:
        """Return the types of a table's columns by name, empty where there is no such table."""

    @abstractmethod
    def run(self, statement: str) -> int:
        """Run a statement; return how many rows it touched."""

    def merge(self) -> Changes:
        """Bring the staged rows into the table, within the transaction.

        Raises:
            OndineError: the table has no column by which its rows could be told.
        """
        new, there = self.columns(STAGING), self.columns(*self._names)
        if self._mode == "replace" and there and there != new:
            # its columns are of another time: what is made anew has those of today
            removed = self.run(f"DELETE FROM {self._table}")  # noqa: S608 (names are quoted)
            self.run(f"DROP TABLE {self._table}")
            return Changes(self._create(), removed=removed)
        if not there:
            return Changes(self._create())
        if self._mode == "replace":
            removed = self.run(f"DELETE FROM {self._table}")  # noqa: S608
            return Changes(self._insert(new), removed=removed)
        self._add_columns(new, there)
        overwritten = self._overwrite(new) if self._mode == "update" else 0
        return Changes(self._insert(new, only_new=True), overwritten=overwritten)

    def _create(self) -> int:
        self.run(f"CREATE TABLE {self._table} AS SELECT * FROM {STAGING} WHERE false")  # noqa: S608
        return self._insert(self.columns(STAGING))

    def _insert(self, columns: Mapping[str, str], *, only_new: bool = False) -> int:
        names = ", ".join(map(quoted, columns))
        known = f"SELECT 1 FROM {self._table} AS old WHERE {self._same_row()}"  # noqa: S608
        where = f" WHERE NOT EXISTS ({known})" if only_new else ""
        return self.run(
            f"INSERT INTO {self._table} ({names}) SELECT {names} FROM {STAGING} AS new{where}"  # noqa: S608
        )

    def _overwrite(self, columns: Mapping[str, str]) -> int:
        values = [name for name in map(quoted, columns) if name not in map(quoted, self._key)]
        if not values:
            return 0
        changed = ", ".join(f"{name} = new.{name}" for name in values)
        return self.run(
            f"UPDATE {self._table} AS old SET {changed} FROM {STAGING} AS new "  # noqa: S608
            f"WHERE {self._same_row()}"
        )

    def _same_row(self) -> str:
        return " AND ".join(f"old.{name} = new.{name}" for name in map(quoted, self._key))

    def _add_columns(self, new: Mapping[str, str], there: Mapping[str, str]) -> None:
        lacking = [name for name in self._key if name not in there]
        if lacking:
            raise OndineError(
                f"{self.shown} has no column {', '.join(lacking)}, by which its rows are known. "
                "Name another table, or use mode replace."
            )
        for name, kind in new.items():
            if name not in there:
                self.run(f"ALTER TABLE {self._table} ADD COLUMN {quoted(name)} {kind}")


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
