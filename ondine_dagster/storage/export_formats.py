"""The files that people take away: CSV, Parquet, JSON lines, Excel, DuckDB; piece by piece.

Owns how a value looks in the first three. CSV keeps NULL (nothing) apart from the empty text ("");
JSON lines keep all scripts readable; Parquet keeps the types.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import AtomicFile
from ondine_dagster.storage.export_duckdb import DuckDBFile
from ondine_dagster.storage.export_excel import ExcelFile
from ondine_dagster.storage.export_file import ExportFile, batches, finite, json_text
from ondine_dagster.storage.row_keys import plain, plain_values

if TYPE_CHECKING:
    import pyarrow as pa


_DIGITS_WRITTEN_PLAINLY = 6
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=plain)
_SPECIAL = re.compile('[",\r\n]')


class _Csv(ExportFile):
    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        import pyarrow.csv as pa_csv

        super().__init__(file, schema)
        self._readable = _readable_schema(schema)
        # "needed" quotes every text and leaves NULL empty, which tells '' from NULL.
        # Names are quoted only where they must be; pyarrow's "needed" would quote all of them.
        header = "needed" if any(_SPECIAL.search(name) for name in schema.names) else "none"
        options = pa_csv.WriteOptions(quoting_style="needed", quoting_header=header)
        self._writer = pa_csv.CSVWriter(file.stream, self._readable, write_options=options)

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(_readable(rows, self._readable))

    def commit(self) -> None:
        self._writer.close()
        super().commit()


class _Parquet(ExportFile):
    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        super().__init__(file, schema)
        self._writer = pq.ParquetWriter(file.stream, schema, compression="zstd")

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows)

    def commit(self) -> None:
        self._writer.close()
        super().commit()


class _JsonLines(ExportFile):
    def write(self, rows: pa.Table) -> None:
        for batch in batches(rows):
            columns = [_json_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                row = dict(zip(self._schema.names, values, strict=True))
                self._file.stream.write(_ENCODER.encode(row).encode() + b"\n")


_FORMATS: dict[str, type[ExportFile]] = {
    ".csv": _Csv,
    ".parquet": _Parquet,
    ".jsonl": _JsonLines,
    ".xlsx": ExcelFile,
    ".duckdb": DuckDBFile,
}


def open_format(to: Path, schema: pa.Schema) -> ExportFile:
    """Open the export file `to`; its ending says the format.

    Raises:
        OndineError: an unknown ending, or the folder cannot be made.
    """
    writer = _FORMATS.get(to.suffix.lower())
    if writer is None:
        raise OndineError(
            f"Cannot export to {to}: its ending is {to.suffix or 'missing'}. "
            f"Known endings: {', '.join(_FORMATS)}."
        )
    if to.is_dir():
        raise OndineError(f"Cannot export to {to}: it is a folder. Give the name of a file.")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        file = AtomicFile(to, private=False)
    except OSError as error:
        raise OndineError(f"Cannot export to {to}: {error.strerror}.") from None
    try:
        return writer(file, schema)
    except BaseException:
        file.abort()
        raise


def _json_values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    values = _values(column)
    may_be_strange = pa.types.is_floating(column.type) or pa.types.is_nested(column.type)
    return list(map(finite, values)) if may_be_strange else values


def _values(column: pa.Array) -> list[Any]:
    """Return plain values; a decimal as people write it, 0.000000 and not 0E-6."""
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        return [None if value is None else f"{value:f}" for value in column.to_pylist()]
    return plain_values(column)


def _readable_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(f.name, _readable_type(f.type)) for f in schema])


def _readable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that CSV can hold: lists, structs, bytes and the like become text.

    So do decimals with many digits behind the point: Arrow writes the small ones as 0E-12.
    """
    import pyarrow as pa

    if pa.types.is_decimal(kind):
        return kind if kind.scale <= _DIGITS_WRITTEN_PLAINLY else pa.string()
    is_plain = pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)
    return kind if is_plain else pa.string()


def _readable(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [
        column if column.type == field.type else _as_text(column)
        for column, field in zip(rows.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    chunks = [
        [v if v is None or isinstance(v, str) else json_text(v) for v in _values(chunk)]
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, type=pa.string())
