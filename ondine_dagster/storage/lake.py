"""The lake: one Parquet file per asset partition, written with pyarrow, read with DuckDB or Arrow.

Owns where files are, and how they are found and queried. Files are replaced whole and durably, so
a reader sees the old content or the new one. pyarrow writes because DuckDB changes zone names,
dictionaries and list fields on the way; DuckDB reads because it is the faster scanner.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import fsync_folder
from ondine_dagster.storage.layout import (
    asset_file,
    asset_files,
    asset_folder,
    partition_of,
    unquoted,
)
from ondine_dagster.storage.parquet_files import (
    LakeFile,
    LakeWriter,
    read_metadata,
    read_schema,
    read_table,
)
from ondine_dagster.storage.sealed_texts import to_seal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_local = threading.local()


class MissingPartition(OndineError):
    """An asset has no file for a partition that was asked for."""


class Lake:
    """The files of all assets below one folder. Holds no state: safe to share between threads."""

    def __init__(self, root: Path) -> None:
        """Use `root`, made absolute at once; it need not exist before the first write."""
        self.root = Path(root).absolute()

    def path(self, dataset: str, asset: str, partition: str | None) -> Path:
        """Return where the file of a partition is or would be (None: an unpartitioned asset)."""
        return asset_file(self.root, (dataset, asset), partition)

    def write(
        self,
        dataset: str,
        asset: str,
        partition: str | None,
        table: pa.Table,
        metadata: Mapping[str, str] | None = None,
    ) -> Path:
        """Replace the file of a partition by `table`, durably, and return its path."""
        with self.open_writer(dataset, asset, partition, table.schema, metadata) as writer:
            writer.append(table)
            return writer.commit()

    def open_writer(
        self,
        dataset: str,
        asset: str,
        partition: str | None,
        schema: pa.Schema,
        metadata: Mapping[str, str] | None = None,
        *,
        as_it_lies: bool = False,
    ) -> LakeWriter:
        """Open a writer that takes a partition piece by piece; nothing shows until it commits.

        Texts of prompts and answers are sealed where there is a key, unless rows and notes were
        read `as_it_lies`. Raises OndineError for a key that is too short.
        """
        path = self.path(dataset, asset, partition)
        return LakeWriter(path, schema, metadata, None if as_it_lies else to_seal(path))

    def read(
        self,
        dataset: str,
        asset: str,
        partition: str | None,
        columns: Sequence[str] | None = None,
        *,
        as_it_lies: bool = False,
        shown: bool = False,
    ) -> pa.Table:
        """Return a partition, or some of its columns in the order asked for.

        Texts that are sealed stay so if it is read `as_it_lies`; only `shown`, UNREADABLE stands
        for those under another key.

        Raises:
            MissingPartition: it has no file.
            OndineError: it is damaged, or its texts are sealed under another key.
        """
        path = self._existing(dataset, asset, partition)
        return read_table(path, columns, as_it_lies=as_it_lies, shown=shown)

    def open(
        self, dataset: str, asset: str, partition: str | None, *, shown: bool = False
    ) -> LakeFile:
        """Open a partition, to read notes and rows that belong together. Close it.

        Only `shown`, UNREADABLE stands for texts under another key.

        Raises:
            MissingPartition: it has no file.
            OndineError: it is damaged.
        """
        return LakeFile(self._existing(dataset, asset, partition), shown=shown)

    def iter_batches(
        self,
        dataset: str,
        asset: str,
        partition: str | None,
        batch_rows: int = 1000,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield a partition in batches of at most `batch_rows` rows, without loading it whole.

        Raises:
            MissingPartition: it has no file.
        """
        with closing(self.open(dataset, asset, partition)) as file:
            yield from file.iter_batches(batch_rows, columns)

    def scan(
        self,
        dataset: str,
        asset: str,
        keys: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Return a lazy DuckDB relation over the partitions `keys` (None: every file present).

        Columns are matched by name; a file that lacks one gives NULL. Sealed texts stay sealed.

        Raises:
            MissingPartition: a key has no file, or there is no file at all.
        """
        if keys is None:
            files = asset_files(asset_folder(self.root, (dataset, asset)))
            if not files:
                raise _missing(dataset, asset, None, self.path(dataset, asset, None).parent)
        else:
            files = [self._existing(dataset, asset, key) for key in keys]
        relation = scan_files(files)
        return relation if columns is None else relation.select(*map(identifier, columns))

    def metadata(self, dataset: str, asset: str, partition: str | None) -> dict[str, str]:
        """Return what the writer noted about a partition.

        Raises:
            MissingPartition: it has no file.
        """
        return read_metadata(self._existing(dataset, asset, partition))

    def schema(self, dataset: str, asset: str, partition: str | None) -> pa.Schema:
        """Return the Arrow schema of a partition.

        Raises:
            MissingPartition: it has no file.
        """
        return read_schema(self._existing(dataset, asset, partition))

    def exists(self, dataset: str, asset: str, partition: str | None) -> bool:
        """Return whether a partition has a finished file."""
        return self.path(dataset, asset, partition).is_file()

    def datasets(self, asset: str) -> list[str]:
        """Return the datasets that have files of an asset, sorted."""
        return sorted(unquoted(one.parent.name) for one in self.root.glob(f"*/{asset}/"))

    def partitions(self, dataset: str, asset: str) -> list[str]:
        """Return the keys that have files, sorted; none for an unpartitioned asset."""
        files = asset_files(asset_folder(self.root, (dataset, asset)))
        return sorted(key for file in files if (key := partition_of(file)) is not None)

    def delete(self, dataset: str, asset: str, partition: str | None) -> None:
        """Remove the file of a partition, durably; does nothing if there is none."""
        path = self.path(dataset, asset, partition)
        if path.exists():
            path.unlink(missing_ok=True)
            fsync_folder(path.parent)

    def _existing(self, dataset: str, asset: str, partition: str | None) -> Path:
        path = self.path(dataset, asset, partition)
        if not path.is_file():
            raise _missing(dataset, asset, partition, path)
        return path


def scan_files(files: Iterable[Path]) -> duckdb.DuckDBPyRelation:
    """Return a lazy DuckDB relation over Parquet files, in their order, columns by name.

    Relations of one thread can be joined with one another.
    """
    # The files go in as text: their names may hold what DuckDB takes for a pattern.
    paths = [glob_literal(str(file)) for file in files]
    return _connection().read_parquet(paths, union_by_name=True)


def from_arrow(table: pa.Table) -> duckdb.DuckDBPyRelation:
    """Return a DuckDB relation over a table, which can be joined with those of `scan_files`."""
    return _connection().from_arrow(table)


def _connection() -> duckdb.DuckDBPyConnection:
    """Return this thread's DuckDB in memory: it joins no relations of different connections."""
    import duckdb

    if not hasattr(_local, "connection"):
        _local.connection = duckdb.connect()
    connection: duckdb.DuckDBPyConnection = _local.connection
    return connection


def glob_literal(path: str) -> str:
    """Return `path` so that DuckDB's pattern matching takes it literally."""
    return re.sub(r"([\[*?])", r"[\1]", path)


def identifier(name: str) -> str:
    """Return `name` quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _missing(dataset: str, asset: str, partition: str | None, path: Path) -> MissingPartition:
    which = "" if partition is None else f" for partition {partition}"
    option = "" if partition is None else f" --partition {partition}"
    return MissingPartition(
        f"{dataset}/{asset} has no file{which} (looked for {path}). Materialize the asset "
        f"{dataset}/{asset}{which}, or run: ondine-dagster run {dataset}{option}"
    )
