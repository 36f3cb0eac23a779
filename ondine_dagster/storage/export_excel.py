"""Exports to Excel (.xlsx): one sheet, text as text, and a refusal of what a cell cannot hold.

Limits: https://support.microsoft.com/office/excel-specifications-and-limits-1672b34d
"""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from math import isfinite
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import AtomicFile
from ondine_dagster.storage.export_file import ExportFile, batches, json_text
from ondine_dagster.storage.row_keys import plain_values

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_LINES = 1_048_576
_MOST_CHARACTERS = 32_767
_MOST_DIGITS = 10**15  # a cell's number keeps fifteen
_FIRST_YEAR = 1900
_INSTEAD = "Export to .csv or .parquet, which hold it."


class ExcelFile(ExportFile):
    """A workbook with the sheet `results`."""

    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        """Raises OndineError where the writer is not installed."""
        try:
            from openpyxl import Workbook
            from openpyxl.cell import WriteOnlyCell
        except ImportError:
            raise OndineError(
                f"Cannot export to {file.path}: Excel files need the extra `excel`: "
                "pip install 'ondine_dagster[excel]'"
            ) from None
        super().__init__(file, schema)
        self._cell = WriteOnlyCell
        self._book = Workbook(write_only=True)
        self._sheet = self._book.create_sheet("results")
        self._lines = 0
        self._saved = False
        self._append(schema.names)

    def write(self, rows: pa.Table) -> None:
        """Add rows; raises OndineError for a value that no cell holds."""
        for batch in batches(rows):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                self._append(values)

    def commit(self) -> None:
        """Make the file appear, durably."""
        self._saved = True
        self._book.save(self._file.stream)
        super().commit()

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        if not self._saved:  # only a save ends the writer and its own temporary files
            with TemporaryFile() as nowhere:
                self._book.save(nowhere)
        super().abort()

    def _append(self, values: Any) -> None:
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise OndineError(
                f"Cannot export to {self._file.path}: a sheet has {_MOST_LINES:,} lines, header "
                f"included. {_INSTEAD}"
            )
        self._sheet.append([self._shown(value, place) for place, value in enumerate(values)])

    def _shown(self, value: Any, place: int) -> Any:
        """Return what goes into a cell: a number, a date, or text that is never a formula."""
        if value is None or isinstance(value, bool) or _is_number(value) or _is_day(value):
            return value
        text = value if isinstance(value, str) else _as_text(value)
        return self._text(text, place)

    def _text(self, text: str, place: int) -> Any:
        from openpyxl.utils.exceptions import IllegalCharacterError

        where = f"column {self._schema.names[place]!r}, line {self._lines}"
        if len(text) > _MOST_CHARACTERS:
            raise OndineError(
                f"Cannot export to {self._file.path}: {where} has {len(text):,} characters, and a "
                f"cell {_MOST_CHARACTERS:,} at most. {_INSTEAD}"
            )
        try:
            cell = self._cell(self._sheet, value=text)
        except IllegalCharacterError:
            raise OndineError(
                f"Cannot export to {self._file.path}: {where} holds a control character, which no "
                f"cell does. {_INSTEAD}"
            ) from None
        cell.data_type = "s"
        return cell


def _values(column: pa.Array) -> list[Any]:
    """Return plain values, but days and local times as they are: Excel has them too."""
    import pyarrow as pa

    kind = column.type
    local = pa.types.is_timestamp(kind) and kind.tz is None and kind.unit != "ns"
    if local or pa.types.is_date(kind):
        with suppress(OverflowError, ValueError):  # before the year 1 or after 9999
            return list(column.to_pylist())
    return plain_values(column)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < _MOST_DIGITS
    return isinstance(value, float) and isfinite(value)


def _is_day(value: Any) -> bool:
    if isinstance(value, datetime):
        return value.tzinfo is None and value.year >= _FIRST_YEAR
    return isinstance(value, date) and value.year >= _FIRST_YEAR


def _as_text(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | float):
        return str(value)
    return json_text(value)
