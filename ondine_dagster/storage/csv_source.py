"""Reads CSV files (RFC 4180, comma, UTF-8) as text, or says which line is wrong.

Owns the dialect. pyarrow parses: unlike DuckDB it takes quoted cells of any size with any mix of
line breaks in them, and agrees with Python's csv module on every odd case tried. It is silent about
a quote that never closes, so a last row of our own is appended and must arrive whole. Which line is
wrong is found afterwards with Python's csv module, slowly, because only errors pay for it.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ondine_dagster.errors import OndineError

if TYPE_CHECKING:
    import _csv

    import pyarrow as pa

_BLOCK_BYTES = 4 << 20
# Arrow counts bytes of a block in 32 bits.
_LARGEST_BLOCK = (1 << 31) - (1 << 20)
_END = "\x1fend of rows"


def csv_header(path: Path) -> list[str]:
    """Return the column names in the first line.

    Raises:
        OndineError: there is none, or a name is empty or repeats.
    """
    try:
        with _records(path) as records:
            names: list[str] = next((record for record in records if record), [])
    except UnicodeDecodeError:
        raise OndineError(_encoding_message(path)) from None
    if not names:
        raise OndineError(f"{path} is empty. A CSV source needs a header line with column names.")
    _check_names(names, path)
    return names


def read_csv(path: Path) -> pa.Table:
    """Return all cells as text; an unquoted empty cell is NULL, a quoted one is ''.

    Raises:
        OndineError: ragged rows, not UTF-8, or a quote that never closes; names the line.
    """
    import pyarrow as pa

    names = csv_header(path)
    try:
        table = _parse(path, names, _BLOCK_BYTES)
    except pa.ArrowInvalid:
        table = _parse_in_one_block(path, names)
    if not _ends_whole(table, names):
        raise OndineError(_complaint(path, names) or f"{path}: a quote is opened but not closed.")
    return table.slice(0, table.num_rows - 1)


def _parse_in_one_block(path: Path, names: list[str]) -> pa.Table:
    """Parse again with room for a cell as large as the file, which is one cause of errors."""
    import pyarrow as pa

    size = min(path.stat().st_size + _BLOCK_BYTES, _LARGEST_BLOCK)
    try:
        return _parse(path, names, size)
    except pa.ArrowInvalid as error:
        reason = _complaint(path, names) or f"{path} cannot be read as CSV: {error}"
        raise OndineError(reason) from None


def _parse(path: Path, names: list[str], block_bytes: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    with open(path, "rb") as file:
        return pa_csv.read_csv(
            _WithEnd(file, len(names)),
            read_options=pa_csv.ReadOptions(block_size=block_bytes),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )


class _WithEnd(io.RawIOBase):
    """A file followed by one more row, which only a file whose quotes are closed leaves whole."""

    def __init__(self, file: BinaryIO, columns: int) -> None:
        self._file = file
        self._rest = io.BytesIO(b"\n" + ",".join([_END] * columns).encode() + b"\n")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # Never a short read before the end: pyarrow takes each for a block and wants a line in it.
        content = self._file.read(size)
        if size < 0:
            return content + self._rest.read()
        return content + self._rest.read(size - len(content))


def _ends_whole(table: pa.Table, names: list[str]) -> bool:
    last = table.slice(table.num_rows - 1).to_pylist()
    return bool(table.num_rows) and last == [dict.fromkeys(names, _END)]


def _check_names(names: list[str], path: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1 and name})
    if repeated:
        raise OndineError(f"{path}: columns with the same name: {', '.join(repeated)}. Rename one.")
    if "" in names:
        raise OndineError(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name in the header line. "
            f"Give it one."
        )


def _complaint(path: Path, names: list[str]) -> str | None:
    """Return what is wrong with the file and in which line, None if nothing was found."""
    try:
        return _first_bad_record(path, len(names))
    except UnicodeDecodeError:
        return _encoding_message(path)


def _first_bad_record(path: Path, columns: int) -> str | None:
    line = 1
    with _records(path, ends_with=_END) as records:
        for record in records:
            if record == [_END]:
                return None
            if record and record[-1].endswith(_END):
                return f"{path}, line {line}: a quote is opened in this row and never closed."
            if record and len(record) != columns:
                return (
                    f"{path}, line {line}: {len(record)} cells, but the header has {columns}. "
                    f"The row starts with {record[0][:60]!r}. A comma inside a cell needs quotes."
                )
            line = records.line_num + 1
    return None


@contextmanager
def _records(path: Path, ends_with: str = "") -> Iterator[_csv.Reader]:
    if not path.is_file():
        raise OndineError(f"source.path: there is no file {path}.")
    before = csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield csv.reader(chain(file, [ends_with] if ends_with else []))
    finally:
        csv.field_size_limit(before)


def _encoding_message(path: Path) -> str:
    """Name the first line that is not UTF-8, reading the file piece by piece."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return (
                    f"{path}, line {number}: the byte 0x{line[error.start]:02X} is not UTF-8. "
                    f"Save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')."
                )
    return f"{path} is not UTF-8. Save it as UTF-8."
