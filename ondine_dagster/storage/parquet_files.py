"""Parquet files: written piece by piece and whole or not at all, read as they are.

Owns the format of every file of the lake: compression, row groups, and the notes that a writer
leaves in a file's footer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import AbortedUnlessCommitted, AtomicFile, ensure_folder
from ondine_dagster.storage.sealed_texts import SEALED_NOTE, SealedTexts, as_sealed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Rows that the writer collects before it writes a row group, whatever the size of the appends.
_ROW_GROUP_ROWS = 10_000
_COMPRESSION = "zstd"
_ARROW_SCHEMA = "ARROW:schema"


class LakeFile:
    """One finished file, open: what is read from it stays the same, whatever replaces it."""

    def __init__(self, path: Path, *, shown: bool = False) -> None:
        """Open it. Only `shown`, texts under another key are read as UNREADABLE."""
        self._shown = shown
        self._closing = ExitStack()
        self._file = self._closing.enter_context(_parquet(path))
        self.metadata = _notes(self._file)
        self.schema: pa.Schema = self._file.schema_arrow
        self.rows: int = self._file.metadata.num_rows
        self._sealed = as_sealed(path, self.metadata)

    def iter_batches(
        self,
        batch_rows: int = 1000,
        columns: Sequence[str] | None = None,
        keys: Collection[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches of at most `batch_rows`, without loading them all.

        Those of `keys` only, where they are given: others are not opened. Raises OndineError for
        texts that are sealed under another key, or were changed.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names, hidden = _with_names_of_rows(columns, self._sealed)
        wanted = None if keys is None else pa.array(list(keys), pa.string())
        for batch in self._file.iter_batches(batch_size=batch_rows, columns=names):
            if wanted is not None:
                batch = batch.filter(pc.is_in(batch.column("_row_key"), value_set=wanted))
            if self._sealed is not None:
                batch = self._sealed.open(batch, shown=self._shown)
            yield batch.drop_columns(hidden) if hidden else batch

    @property
    def readable(self) -> bool:
        """Return whether the key of its texts is given."""
        return self._sealed is None or self._sealed.readable

    def refuse_other_key(self) -> None:
        """Raise OndineError where texts are sealed under a key that is not given."""
        if self._sealed is not None:
            self._sealed.refuse_other_key()

    def close(self) -> None:
        """Close the file."""
        self._closing.close()


class LakeWriter(AbortedUnlessCommitted):
    """Writes one file piece by piece; as a context manager it aborts unless committed."""

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        metadata: Mapping[str, str] | None = None,
        sealed: SealedTexts | None = None,
    ) -> None:
        """Write rows as they come, but for the texts that are to be `sealed`."""
        import pyarrow.parquet as pq

        ensure_folder(path.parent)
        self.schema = schema
        self._sealed = sealed
        self._metadata = {**(metadata or {}), **({SEALED_NOTE: sealed.key} if sealed else {})}
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._file = AtomicFile(path)
        try:
            self._writer = pq.ParquetWriter(self._file.stream, schema, compression=_COMPRESSION)
        except BaseException:
            self._file.abort()
            raise

    def append(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            ValueError: their schema is not the declared one, which is a defect of the caller.
        """
        import pyarrow as pa

        if not rows.schema.equals(self.schema):
            raise ValueError(_schema_difference(self._file.path, self.schema, rows.schema))
        if self._sealed is not None:
            rows = self._sealed.seal(rows)
        self._pending += [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches()
        self._pending_rows += rows.num_rows
        if self._pending_rows >= _ROW_GROUP_ROWS:
            self._flush()

    def append_row_group(self, rows: pa.Table) -> None:
        """Add rows as a row group of their own, which can be read without the others."""
        self._flush()
        self._writer.write_table(rows, row_group_size=max(rows.num_rows, 1))

    def commit(self, metadata: Mapping[str, str] | None = None) -> Path:
        """Finish the file, make it durable under its name and return its path.

        `metadata` is noted in the file; on equal keys it wins over what was given at the start.
        """
        self._flush()
        self._writer.add_key_value_metadata({**self._metadata, **(metadata or {})})
        self._writer.close()
        return self._file.commit()

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        self._pending = []
        with suppress(OSError):  # such as the full disk that is the reason for the abort
            self._writer.close()
        self._file.abort()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending_rows:
            self._writer.write_table(pa.Table.from_batches(self._pending, self.schema))
        self._pending, self._pending_rows = [], 0


def to_table(columns: Mapping[str, Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Build a table from Python values.

    Raises:
        OndineError: a text holds a lone surrogate, which no file can; names column and row.
    """
    import pyarrow as pa

    try:
        return pa.table(dict(columns), schema=schema)
    except UnicodeEncodeError:
        raise OndineError(_surrogate_message(columns)) from None


def as_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema`, NULL where the table has none: a file may be older."""
    import pyarrow as pa

    known = dict(zip(table.column_names, table.columns, strict=True))
    columns = [
        known[field.name].cast(field.type)
        if field.name in known
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str] | None = None) -> Path:
    """Replace the Parquet file `path` by `table`, durably."""
    with LakeWriter(path, table.schema, metadata) as writer:
        writer.append(table)
        return writer.commit()


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    as_it_lies: bool = False,
    shown: bool = False,
) -> pa.Table:
    """Return a Parquet file, or some of its columns in the order asked for.

    Texts that are sealed stay so if it is read `as_it_lies`; only `shown`, those under another key
    are UNREADABLE.

    Raises:
        OndineError: it is damaged, or its texts are sealed under another key.
        KeyError: it has no such column.
    """
    with _parquet(path) as file:
        sealed = None if as_it_lies else as_sealed(path, _notes(file))
        names, _ = _with_names_of_rows(columns, sealed)
        with _readable(path):
            table = file.read(columns=names)
    if sealed is not None:
        table = sealed.open(table, shown=shown)
    return table if columns is None else table.select(list(columns))


def _with_names_of_rows(
    columns: Sequence[str] | None, sealed: SealedTexts | None
) -> tuple[list[str] | None, list[str]]:
    """Return the columns to read, and those of them that were added: texts open with them."""
    if columns is None:
        return None, []
    opens = sealed is not None and sealed.opens(columns)
    added = [one for one in sealed.named_by if one not in columns] if sealed and opens else []
    return [*columns, *added], added


def read_schema(path: Path) -> pa.Schema:
    """Return the Arrow schema of a Parquet file.

    Raises:
        OndineError: it is damaged.
    """
    with _parquet(path) as file:
        return file.schema_arrow


def read_metadata(path: Path) -> dict[str, str]:
    """Return what the writer of a Parquet file noted in it.

    Raises:
        OndineError: it is damaged.
    """
    return read_end(path)[0]


def read_end(path: Path) -> tuple[dict[str, str], int]:
    """Return what the writer of a Parquet file noted in it, and its number of rows.

    Raises:
        OndineError: it is damaged.
    """
    with _parquet(path) as file:
        return _notes(file), file.metadata.num_rows


def _notes(file: pq.ParquetFile) -> dict[str, str]:
    pairs = file.metadata.metadata or {}
    notes = {key.decode(): value.decode() for key, value in pairs.items()}
    notes.pop(_ARROW_SCHEMA, None)
    return notes


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with _readable(path):
        file = pq.ParquetFile(path)
    with file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file into an OndineError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the system's: no file, or no right to it
            raise
        raise OndineError(
            f"{path} cannot be read as Parquet ({' '.join(str(error).split())}). If it is a file "
            f"of the lake, delete it and materialize its partition again."
        ) from None


def _schema_difference(path: Path, declared: pa.Schema, got: pa.Schema) -> str:
    wanted = {field.name: str(field.type) for field in declared}
    found = {field.name: str(field.type) for field in got}
    differ = [
        f"{name}: declared {wanted.get(name, 'no such column')}, got {found.get(name, 'nothing')}"
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    ]
    return f"rows for {path} do not have its schema: {'; '.join(differ) or 'order or nullability'}"


def _surrogate_message(columns: Mapping[str, Sequence[Any]]) -> str:
    for name, values in columns.items():
        for row, value in enumerate(values):
            if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
                return (
                    f"Column {name!r}, row {row}: the text holds a lone surrogate (half of a "
                    f"UTF-16 character), which no file can store: {ascii(value)[:80]}. Replace "
                    f"it, for example with U+FFFD."
                )
    return "A text holds a lone surrogate (half of a UTF-16 character); replace it."
