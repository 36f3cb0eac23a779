"""Exports to DuckDB: a file of its own, or a table in a file that holds others too."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage.atomic import AtomicFile
from ondine_dagster.storage.export_file import ExportFile
from ondine_dagster.storage.export_table import STAGING, Changes, TableSink

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.05


class DuckDBFile(ExportFile):
    """A database of its own with one table, `results`; copied into the file once it is whole."""

    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        import duckdb

        super().__init__(file, _storable(schema))
        self._scratch = file.scratch
        self._connection = duckdb.connect(str(self._scratch))
        self._lock = open(self._scratch, "rb")  # noqa: SIM115 (says that its writer lives)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._connection.register("rows", self._schema.empty_table())
            self._connection.execute("CREATE TABLE results AS SELECT * FROM rows")
        except BaseException:
            self._drop()
            raise

    def write(self, rows: pa.Table) -> None:
        """Add rows."""
        self._connection.register("rows", rows.cast(self._schema))
        self._connection.execute("INSERT INTO results SELECT * FROM rows")

    def commit(self) -> None:
        """Make the file appear, durably."""
        self._connection.close()
        with open(self._scratch, "rb") as database:
            shutil.copyfileobj(database, self._file.stream)
        super().commit()

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        self._drop()
        super().abort()

    def _drop(self) -> None:
        self._connection.close()
        self._lock.close()
        for path in (self._scratch, self._scratch.with_name(f"{self._scratch.name}.wal")):
            path.unlink(missing_ok=True)


class DuckDBTable(TableSink):
    """A table in a DuckDB file, which is made where it is not there."""

    def __init__(
        self, path: Path, table: str, schema: pa.Schema, mode: Mode, key: Sequence[str]
    ) -> None:
        """Open the file; raises OndineError where it cannot be written, or is in use for long."""
        super().__init__(str(path), table, mode, key)
        self._schema = _storable(schema)
        with self._readable_errors():
            self._connection = _connected(path)
        try:
            self.run("BEGIN")
            self._connection.register("rows", self._schema.empty_table())
            self.run(f"CREATE TEMP TABLE {STAGING} AS SELECT * FROM rows")  # noqa: S608
        except BaseException:
            self.abort()
            raise

    def write(self, rows: pa.Table) -> None:
        """Add rows to the staging table."""
        self._connection.register("rows", rows.cast(self._schema))
        self.run(f"INSERT INTO {STAGING} SELECT * FROM rows")  # noqa: S608

    def commit(self) -> Changes:
        """Merge and make it durable; return what changed."""
        changes = self.merge()
        self.run(f"DROP TABLE {STAGING}")
        self.run("COMMIT")
        return changes

    def abort(self) -> None:
        """Close the file, which takes back what was not committed."""
        self._connection.close()

    def columns(self, *names: str) -> dict[str, str]:
        """Return the types of a table's columns by name, empty where there is no such table."""
        # names are told apart as DuckDB does it
        schema, table = names if len(names) > 1 else ("main", names[0])
        query = (
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE lower(table_name) = lower(?) AND lower(schema_name) = lower(?) "
            "ORDER BY column_index"
        )
        return dict(self._connection.execute(query, (table, schema)).fetchall())

    def run(self, statement: str) -> int:
        """Run a statement; return how many rows it touched."""
        with self._readable_errors():
            found = self._connection.execute(statement).fetchone()
        return int(found[0]) if found and statement[:6] in ("DELETE", "INSERT", "UPDATE") else 0

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            advice = " Close the program that has the file open." if _is_in_use(error) else ""
            raise OndineError(f"{self.shown}: {' '.join(str(error).split())}{advice}") from None


def _connected(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a file that one process at a time may write: another export is waited for."""
    import duckdb

    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return duckdb.connect(str(path))
        except duckdb.Error as error:
            if not _is_in_use(error) or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_SECONDS)


def _is_in_use(error: Exception) -> bool:
    return "Conflicting lock" in str(error)


def _storable(schema: pa.Schema) -> pa.Schema:
    """Return the schema as DuckDB has it: text for more than 38 digits, no fractions of 16 bits."""
    import pyarrow as pa

    def kept(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_decimal256(kind):
            return pa.string()
        return pa.float32() if pa.types.is_float16(kind) else kind

    return pa.schema([pa.field(one.name, kept(one.type)) for one in schema])
