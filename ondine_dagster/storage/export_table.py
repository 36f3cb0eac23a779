"""Exports into a table of a database: a staging table is filled, then merged in one transaction.

Owns what becomes of the rows that the table has already. `replace`: afterwards it holds the results
and nothing else. `update`: rows are known by their key; those that are there get the new values,
others are added, rows that the results do not have any more stay. `append`: only rows whose key is
not there yet are added. Columns of the table that an export does not know are left alone; text goes
into those of other types, such as uuid and json, as the database reads it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage.atomic import AbortedUnlessCommitted
from ondine_dagster.wording import listed

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_COLUMNS = 10
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
        self._casts: dict[str, str] = {}  # where text meets another type

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
        self._meet_types(new, there)
        self._add_columns(new, there)
        overwritten = self._overwrite(new) if self._mode == "update" else 0
        return Changes(self._insert(new, only_new=True), overwritten=overwritten)

    def _create(self) -> int:
        self.run(f"CREATE TABLE {self._table} AS SELECT * FROM {STAGING} WHERE false")  # noqa: S608
        return self._insert(self.columns(STAGING))

    def _insert(self, columns: Mapping[str, str], *, only_new: bool = False) -> int:
        names = ", ".join(map(quoted, columns))
        values = ", ".join(map(self._value, columns))
        known = f"SELECT 1 FROM {self._table} AS old WHERE {self._same_row()}"  # noqa: S608
        where = f" WHERE NOT EXISTS ({known})" if only_new else ""
        return self.run(
            f"INSERT INTO {self._table} ({names}) SELECT {values} FROM {STAGING} AS new{where}"  # noqa: S608
        )

    def _overwrite(self, columns: Mapping[str, str]) -> int:
        values = [name for name in columns if name not in self._key]
        if not values:
            return 0
        changed = ", ".join(f"{quoted(name)} = {self._value(name)}" for name in values)
        return self.run(
            f"UPDATE {self._table} AS old SET {changed} FROM {STAGING} AS new "  # noqa: S608
            f"WHERE {self._same_row()}"
        )

    def _same_row(self) -> str:
        return " AND ".join(f"old.{quoted(name)} = {self._value(name)}" for name in self._key)

    def _value(self, name: str) -> str:
        value = f"new.{quoted(name)}"
        return f"CAST({value} AS {self._casts[name]})" if name in self._casts else value

    def _meet_types(self, new: Mapping[str, str], there: Mapping[str, str]) -> None:
        """Learn where text meets another type; a key has to stay as it is: 007 would become 7."""
        lacking = [name for name in self._key if name not in there]
        if lacking:
            raise OndineError(
                f"{self.shown} has no column {', '.join(lacking)}, by which its rows are known; it "
                f"has {listed(list(there), _SHOWN_COLUMNS)}. Name another table, or use mode "
                "replace."
            )
        for name in new.keys() & there.keys():
            if _is_text(new[name]) is not _is_text(there[name]):
                self._casts[name] = there[name]
        for name in self._key:
            if name in self._casts and self._changes(name, new[name]):
                raise OndineError(
                    f"{self.shown}: the key {name} is {there[name]} in the table and {new[name]} "
                    "in the results, and some would change. Change the type of the column, or "
                    "name another table."
                )

    def _changes(self, key: str, kind: str) -> bool:
        there_and_back = f"CAST({self._value(key)} AS {kind})"
        changed = f"{there_and_back} IS DISTINCT FROM new.{quoted(key)}"
        try:
            return self.run(f"DELETE FROM {STAGING} AS new WHERE {changed}") > 0  # noqa: S608
        except OndineError as error:
            raise OndineError(f"{error} It is in the key, {key}.") from None

    def _add_columns(self, new: Mapping[str, str], there: Mapping[str, str]) -> None:
        for name, kind in new.items():
            if name not in there:
                self.run(f"ALTER TABLE {self._table} ADD COLUMN {quoted(name)} {kind}")


def _is_text(kind: str) -> bool:
    return kind.lower().startswith(("text", "varchar", "char", "bpchar", "citext"))


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
