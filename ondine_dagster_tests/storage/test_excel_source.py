"""Excel sources: what a person sees in the cells, or an error that says where."""

from __future__ import annotations

import builtins
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Source
from ondine_dagster.storage.sources import read_source, source_columns


def workbook(tmp_path: Path, rows: list[list[Any]], *more_sheets: str) -> Path:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Reviews"
    for row in rows:
        sheet.append(row)
    for name in more_sheets:
        book.create_sheet(name)
    path = tmp_path / "x.xlsx"
    book.save(path)
    return path


def read(path: Path, sheet: str | None = None) -> list[list[Any]]:
    """Return header and rows."""
    source = Source(path=path.name, sheet=sheet)
    table = read_source(source, path)
    assert table.column_names == source_columns(source, path)
    rows = zip(*table.to_pydict().values(), strict=True)
    return [table.column_names, *map(list, rows)]


def test_cells_keep_value_and_type(tmp_path: Path) -> None:
    rows = [
        ["id", "text", "stars", "price", "bought", "seen", "ok"],
        [1, 'a "b"\nc, 👍', 5, 19.5, date(2026, 5, 1), datetime(2026, 5, 1, 8, 30), True],
        [2, "שלום", None, 20, None, None, False],
    ]
    found = read(workbook(tmp_path, [[], *rows, []]))
    bought = datetime(2026, 5, 1)  # Excel knows no date without a time
    assert found == [
        rows[0],
        [*rows[1][:4], bought, *rows[1][5:]],
        [*rows[2][:3], 20.0, *rows[2][4:]],
    ]


def test_a_column_of_several_kinds_is_text(tmp_path: Path) -> None:
    cells = [7, "7b", datetime(2026, 5, 1), True, timedelta(hours=30)]
    found = read(workbook(tmp_path, [["code"], *([cell] for cell in cells)]))
    assert found[1:] == [["7"], ["7b"], ["2026-05-01 00:00:00"], ["True"], ["1 day, 6:00:00"]]


def test_one_sheet_of_several_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["id"], [1]], "Notes")
    with pytest.raises(OndineError, match=r"several sheets.*source.sheet: 'Reviews', 'Notes'"):
        read(path)
    with pytest.raises(OndineError, match="it has no sheet 'reviews'"):
        read(path, "reviews")
    assert read(path, "Reviews") == [["id"], [1]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty. An Excel source needs a header"),
        ([["id", None, "c"], [1, 2, 3]], "column 2 of 3 has no name"),
        ([["id", "id"], [1, 2]], "columns with the same name: id"),
        (
            [[], ["Report of May"], ["id", "text"]],
            "line 3: there is a cell beyond the header's columns.* line 2: 'Report of May'",
        ),
        ([["id", "sum"], [1, "=1+1"]], "line 2, column 2: the formula '=1.1' has no stored value"),
    ],
)
def test_what_would_lose_something_is_refused(
    tmp_path: Path, rows: list[list[Any]], message: str
) -> None:
    with pytest.raises(OndineError, match=message):
        read(workbook(tmp_path, rows))


def test_a_file_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.xlsx"
    path.write_text("id\n1\n")
    with pytest.raises(OndineError, match="cannot be read as an Excel file"):
        read(path)


def test_a_workbook_that_its_reader_stumbles_over_is_refused(tmp_path: Path) -> None:
    book = Workbook()
    book.create_chartsheet("Chart")  # which openpyxl writes, and cannot read
    book.save(tmp_path / "x.xlsx")
    with pytest.raises(OndineError, match=r"cannot be read as an Excel file.* save it as CSV"):
        read(tmp_path / "x.xlsx")


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = workbook(tmp_path, [["id"], [1]]), builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("openpyxl"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OndineError, match=r"pip install 'ondine_dagster\[excel\]'"):
        read(path)
