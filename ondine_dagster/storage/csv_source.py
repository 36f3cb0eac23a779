"""Reads CSV files as text, or says which line is wrong.

Owns the reading of a dialect (RFC 4180 unless declared). pyarrow parses: unlike DuckDB it takes
quoted cells of any size with any mix of line breaks in them, and agrees with Python's csv module on
every odd case tried. It is silent about a quote that never closes, so a last row of our own is
appended and must arrive whole. Which line is wrong is found afterwards with Python's csv module,
slowly, because only errors pay for it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.source_formats import CsvDialect, default_delimiter
from ondine_dagster.storage.headers import distinct, named
from ondine_dagster.storage.source_bytes import Joined, encoding_of, open_unpacked, open_utf8

if TYPE_CHECKING:
    import _csv

    import pyarrow as pa

_BLOCK_BYTES = 4 << 20
# Arrow counts bytes of a block in 32 bits.
_LARGEST_BLOCK = (1 << 31) - (1 << 20)
_END = "\x1fend of rows"
_OTHER_DELIMITERS = (";", "\t", "|")
_FOR_EXCEL = re.compile(r"sep=(.)")  # what Excel takes for a delimiter, and not for a row
_AS_ESCAPE = (
    "If a backslash stands before quotes that belong to a cell, declare it below `source:` as "
    r'`csv: {escape: "\\"}`; else they are doubled, "".'
)
_AS_CP1252 = (
    "Save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or declare what it is below "
    '`source:`, as in `csv: {encoding: "cp1252"}`.'
)
_AS_UTF_16 = (
    "it holds NUL bytes, as UTF-16 does that has no mark. Save the file as UTF-8, or declare what "
    'it is below `source:` as `csv: {encoding: "utf-16-le"}`.'
)


def csv_header(path: Path, dialect: CsvDialect) -> list[str]:
    """Return the column names in the header line.

    Raises:
        OndineError: there is none, or a name is empty or repeats.
    """
    try:
        with _records(path, dialect) as records:
            names: list[str] = next((record for record in records if record), [])
    except UnicodeError:
        raise OndineError(_encoding_message(path, dialect)) from None
    if not names:
        skipped = f" behind its first {dialect.skip_lines} lines" if dialect.skip_lines else ""
        raise OndineError(
            f"{path} is empty{skipped}. A CSV source needs a header line with column names."
        )
    _check_names(names, path, dialect)
    return names


def read_csv(path: Path, dialect: CsvDialect) -> pa.Table:
    """Return all cells as text; an unquoted empty cell is NULL, a quoted one is ''.

    Raises:
        OndineError: ragged rows, another encoding, or a quote that never closes; names the line.
    """
    import pyarrow as pa

    names = csv_header(path, dialect)
    try:
        table = _parse(path, names, dialect, _BLOCK_BYTES)
    except UnicodeError:
        raise OndineError(_encoding_message(path, dialect)) from None
    except pa.ArrowInvalid:
        table = _parse_in_one_block(path, names, dialect)
    if not _ends_whole(table, names):
        reason = _complaint(path, names, dialect)
        raise OndineError(reason or f"{path}: a quote is opened but not closed.")
    if _may_escape_quotes(path, dialect) and (reason := _complaint(path, names, dialect)):
        raise OndineError(reason)
    return table.slice(0, table.num_rows - 1)


def _may_escape_quotes(path: Path, dialect: CsvDialect) -> bool:
    r"""Return whether \" stands in the file: where it is no end of a cell, parsers keep half."""
    if dialect.escape is not None or not dialect.quote:
        return False
    escaped, last = b"\\" + dialect.quote.encode(), b""
    with open_utf8(path, dialect.encoding) as file:
        while block := file.read(_BLOCK_BYTES):
            if escaped in last + block:
                return True
            last = block[-1:]
    return False


def _parse_in_one_block(path: Path, names: list[str], dialect: CsvDialect) -> pa.Table:
    """Parse again with room for a cell as large as the file, which is one cause of errors."""
    import pyarrow as pa

    with open_utf8(path, dialect.encoding) as file:
        size = min(_size(file) + _BLOCK_BYTES, _LARGEST_BLOCK)
    try:
        return _parse(path, names, dialect, size)
    except pa.ArrowInvalid as error:
        reason = _complaint(path, names, dialect) or f"{path} cannot be read as CSV: {error}"
        raise OndineError(reason) from None


def _size(file: BinaryIO) -> int:
    size = 0
    while block := file.read(_BLOCK_BYTES):
        size += len(block)
    return size


def _parse(path: Path, names: list[str], dialect: CsvDialect, block_bytes: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    with open_utf8(path, dialect.encoding) as file:
        delimiter = _delimiter(path, dialect)
        last_row = io.BytesIO(f"\n{delimiter.join([_END] * len(names))}\n".encode())
        return pa_csv.read_csv(
            Joined(_after(file, dialect.skip_lines), last_row),
            read_options=pa_csv.ReadOptions(block_size=block_bytes),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char=dialect.quote or False,
                escape_char=dialect.escape or False,
                newlines_in_values=True,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )


def _delimiter(path: Path, dialect: CsvDialect) -> str:
    return dialect.delimiter or default_delimiter(path.name)


def _after(file: BinaryIO, lines: int) -> BinaryIO:
    """Return the file behind its first lines; a lone carriage return ends none."""
    buffered = io.BufferedReader(file) if lines else file  # type: ignore[type-var]
    for _ in range(lines):
        buffered.readline()
    return buffered


def _ends_whole(table: pa.Table, names: list[str]) -> bool:
    last = table.slice(table.num_rows - 1).to_pylist()
    return bool(table.num_rows) and last == [dict.fromkeys(names, _END)]


def _check_names(names: list[str], path: Path, dialect: CsvDialect) -> None:
    if any("\0" in name for name in names):
        raise OndineError(f"{path} is no {dialect.encoding.upper()}: {_AS_UTF_16}")
    line = _delimiter(path, dialect).join(names)
    if told := _FOR_EXCEL.fullmatch(line):
        skipped = f"skip_lines: {dialect.skip_lines + 1}"
        raise OndineError(
            f"{path} begins with {line!r}, which only spreadsheets understand. Declare it below "
            f"`source:` as `csv: {{delimiter: {_in_yaml(told[1])}, {skipped}}}`."
        )
    other = _other_delimiter(names[0], dialect)
    if len(names) == 1 and other is not None:
        raise OndineError(
            f"{path}: the header is one column, {names[0][:60]!r}. If {other} separates its "
            f"names, declare it below `source:` as `csv: {{delimiter: {other}}}`; if not, "
            f"declare the comma."
        )
    advice = " If lines stand above the header, declare how many: source.csv.skip_lines."
    distinct(named(names, path, advice), path)


def _other_delimiter(text: str, dialect: CsvDialect) -> str | None:
    """Return another delimiter that stands in a text, as YAML has it; None where one is known."""
    found = None
    if dialect.delimiter is None:
        found = next((one for one in _OTHER_DELIMITERS if one in text), None)
    return None if found is None else _in_yaml(found)


def _in_yaml(delimiter: str) -> str:
    return {"\t": '"\\t"'}.get(delimiter, f'"{delimiter}"')


def _complaint(path: Path, names: list[str], dialect: CsvDialect) -> str | None:
    """Return what is wrong with the file and in which line, None if nothing was found."""
    try:
        return _first_bad_record(path, names, dialect)
    except UnicodeError:
        return _encoding_message(path, dialect)


def _first_bad_record(path: Path, names: list[str], dialect: CsvDialect) -> str | None:
    first = line = 1 + dialect.skip_lines
    strict = _may_escape_quotes(path, dialect)
    with _records(path, dialect, ends_with=_END, strict=strict) as records:
        try:
            for record in records:
                if record == [_END]:
                    return None
                if record and record[-1].endswith(_END):
                    break
                if record and len(record) != len(names):
                    told = f"{path}, line {line}: {len(record)} cells, but the header has "
                    told += f"{len(names)}. The row starts with {record[0][:60]!r}. "
                    return told + _way_out(record, names, dialect, follows=line == first + 1)
                line = records.line_num + 1 + dialect.skip_lines
            else:
                return None
        except csv.Error as error:
            if "end of data" not in str(error):
                return (
                    f"{path}, line {line}: a cell of this row goes on behind its closing quote. "
                    f"{_AS_ESCAPE}"
                )
    return f"{path}, line {line}: a quote is opened in this row and never closed."


def _way_out(record: list[str], names: list[str], dialect: CsvDialect, *, follows: bool) -> str:
    """Say what to do about a row that has more or fewer cells than the header."""
    other = _other_delimiter("".join(names), dialect)
    if other is not None and _other_delimiter("".join(record), dialect) == other:
        return (
            f"If {other} separates the cells, declare it below `source:` as "
            f"`csv: {{delimiter: {other}}}`."
        )
    if len(record) < len(names):
        return "Add what it lacks, or remove the line if it is no row."
    if follows and len(names) == 1:
        return (
            "If the header is further down, declare how many lines stand above it below "
            "`source:`, as in `csv: {skip_lines: 1}`."
        )
    if dialect.quote and dialect.escape is None and any("\\" in cell for cell in record):
        return _AS_ESCAPE
    return "A delimiter inside a cell needs quotes."


@contextmanager
def _records(
    path: Path, dialect: CsvDialect, ends_with: str = "", *, strict: bool = False
) -> Iterator[_csv.Reader]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        with open_utf8(path, dialect.encoding) as raw:
            text = io.TextIOWrapper(
                io.BufferedReader(_after(raw, dialect.skip_lines)),  # type: ignore[type-var]
                encoding="utf-8",
                newline="",
            )
            yield csv.reader(
                chain(text, [ends_with] if ends_with else []),
                delimiter=_delimiter(path, dialect),
                quotechar=dialect.quote or None,
                escapechar=dialect.escape,
                quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
                strict=strict,
            )
    finally:
        csv.field_size_limit(before)


def _encoding_message(path: Path, dialect: CsvDialect) -> str:
    """Name the first line that is not in the encoding, reading the file piece by piece."""
    encoding = encoding_of(path, dialect.encoding)
    decode = codecs.getincrementaldecoder(encoding)().decode
    shown, number = encoding.upper(), 1
    with open_unpacked(path) as file:
        for line in chain(file, [b""]):
            if b"\0" in line and not shown.startswith(("UTF-16", "UTF-32")):
                return f"{path}, line {number}: the text is not {shown}: {_AS_UTF_16}"
            try:
                number += decode(line, final=not line).count("\n")
            except UnicodeError as error:
                byte = "it is"
                if isinstance(error, UnicodeDecodeError):
                    byte = f"the byte 0x{error.object[error.start]:02X} is"
                return f"{path}, line {number}: {byte} not {shown}. {_AS_CP1252}"
    return f"{path} is not {shown}. {_AS_CP1252}"
