"""Reads a sheet of an Excel file (.xlsx): its first line with content is the header.

Owns what a cell is: the value that Excel last computed. A formula whose value was never stored is
refused, as it would be an empty cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import named
from ondine_dagster.storage.plain_values import table_of

if TYPE_CHECKING:
    import pyarrow as pa

_Cells = Sequence[Any]


def excel_header(path: Path, sheet: str | None) -> list[str]:
    """Return the column names of a sheet; raises OndineError as `read_excel` does."""
    _, header = next(_rows(path, sheet), (0, ()))
    return _names(header, path)


def read_excel(path: Path, sheet: str | None) -> pa.Table:
    """Return all rows of a sheet; lines without a value are skipped.

    Raises:
        OndineError: the reader is not installed, no such sheet, several and none named, a header
            with a gap or a name twice, a formula without a value.
    """
    rows = _rows(path, sheet)
    first, header = next(rows, (0, ()))
    names = _names(header, path)
    columns: list[list[Any]] = [[] for _ in names]
    has_gaps = False
    for line, cells in rows:
        if any(cell is not None for cell in cells[len(names) :]):
            raise OndineError(
                f"{path}, line {line}: there is a cell beyond the header's columns. The header is "
                f"the first line with content, here line {first}: {', '.join(names)[:60]!r}. "
                "Remove what stands above it, or give each column a name."
            )
        has_gaps = has_gaps or None in cells[: len(names)]
        for values, cell in zip(columns, (*cells, *[None] * len(names)), strict=False):
            values.append(cell)
    if has_gaps:
        _refuse_formulas(path, sheet)
    return table_of(dict(zip(names, columns, strict=True)))


def _rows(path: Path, sheet: str | None, *, formulas: bool = False) -> Iterator[tuple[int, _Cells]]:
    """Yield the lines that hold something, with their numbers."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise OndineError(
            f"{path}: Excel files need the extra `excel`: pip install 'ondine_dagster[excel]'"
        ) from None
    if not path.is_file():
        raise OndineError(f"source.path: there is no file {path}.")
    try:
        with closing(load_workbook(path, read_only=True, data_only=not formulas)) as book:
            sheets = {one.title: one for one in book.worksheets}
            yield from _filled(sheets[_sheet(list(sheets), path, sheet)])
    except (OndineError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (all that the reader stumbles over)
        told = str(error).rstrip(".") or type(error).__name__
        raise OndineError(
            f"{path} cannot be read as an Excel file: {told}. Open it in a spreadsheet and save it "
            "again, or save it as CSV."
        ) from None


def _filled(sheet: Any) -> Iterator[tuple[int, _Cells]]:
    sheet.reset_dimensions()  # some writers store a size that is wrong
    for line, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield line, cells


def _sheet(sheets: Sequence[str], path: Path, wanted: str | None) -> str:
    if wanted is None and len(sheets) == 1:
        return sheets[0]
    if wanted in sheets:
        return str(wanted)
    told = "it has several sheets" if wanted is None else f"it has no sheet {wanted!r}"
    raise OndineError(
        f"{path}: {told}. Declare one of them as source.sheet: {', '.join(map(repr, sheets))}."
    )


def _names(header: _Cells, path: Path) -> list[str]:
    names = [None if cell is None else str(cell) for cell in header]
    while names and names[-1] is None:
        names.pop()
    if not names:
        raise OndineError(f"{path} is empty. An Excel source needs a header line.")
    return named(names, path)


def _refuse_formulas(path: Path, sheet: str | None) -> None:
    """Compare with what is written in the cells: a value may be missing because nobody computed."""
    values = _rows(path, sheet)
    written = _rows(path, sheet, formulas=True)
    computed = dict(values)
    for line, cells in written:
        known = computed.get(line, ())
        for place, cell in enumerate(cells):
            value = known[place] if place < len(known) else None
            if value is None and isinstance(cell, str) and cell.startswith("="):
                raise OndineError(
                    f"{path}, line {line}, column {place + 1}: the formula {cell[:60]!r} has no "
                    f"stored value. Open the file in a spreadsheet and save it, or export CSV."
                )
