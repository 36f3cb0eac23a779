"""Reading sources: every cell as it is, or an error that says where."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Source
from ondine_dagster.storage.sources import (
    SourceNotFound,
    read_source,
    resolve_path,
    source_columns,
)

BANKING = Path(__file__).parents[3] / "shared" / "data" / "banking77_test.csv"


def csv_file(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(tmp_path: Path, content: bytes | str, **types: str) -> dict[str, list[Any]]:
    path = csv_file(tmp_path, content)
    source = Source.model_validate({"path": "x.csv", "types": types})
    table = read_source(source, path)
    assert table.column_names == source_columns(source, path)
    result: dict[str, list[Any]] = table.to_pydict()
    return result


NASTY = [
    ["id", "text with, comma", "note"],
    ["1", 'say "hi"', "two\nlines"],
    ["2", "windows\r\nlines", "old mac\rline"],
    ["3", "Привет, мир", "日本語 👩‍👩‍👧"],
    ["4", " leading and trailing ", "\ttab"],
    ["5", "NULL", "NA"],
    ["007", "19.90", "True"],
    ["8", "'single'", "back\\slash"],
    ["9", "\x00", "\ufeff"],
]


@pytest.mark.parametrize(
    ("line_end", "quoting"),
    [
        ("\n", csv.QUOTE_ALL),
        ("\r", csv.QUOTE_ALL),
        ("\r\n", csv.QUOTE_ALL),
        ("\r\n", csv.QUOTE_MINIMAL),  # with \n alone Python 3.11 leaves \r in cells unquoted
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_cells_are_those_of_pythons_csv_module(
    tmp_path: Path, line_end: str, quoting: Any, bom: bytes
) -> None:
    path = csv_file(tmp_path, "")
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=line_end, quoting=quoting).writerows(NASTY)
    columns = read(tmp_path, bom + path.read_bytes())
    assert [list(columns), *map(list, zip(*columns.values(), strict=True))] == NASTY


@pytest.mark.skipif(not BANKING.exists(), reason="no sample data beside the repository")
def test_real_data_cell_by_cell() -> None:
    with open(BANKING, newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    table = read_source(Source(path="x.csv"), BANKING)
    assert table.num_rows == 3080
    assert table.to_pylist() == expected


def test_null_and_empty_text_are_kept_apart(tmp_path: Path) -> None:
    assert read(tmp_path, 'a,b\n,""\n"",\n') == {"a": [None, ""], "b": ["", None]}


def test_everything_is_text_until_declared(tmp_path: Path) -> None:
    assert read(tmp_path, "a\n1\n007\ntrue\n") == {"a": ["1", "007", "true"]}


def test_a_very_long_cell_is_read(tmp_path: Path) -> None:
    long = "x\n" * 5_000_000
    assert read(tmp_path, f'a,b\n"{long}",1\n2,3\n') == {"a": [long, "2"], "b": ["1", "3"]}


@pytest.mark.parametrize("content", ["a,b", "a,b\n", "a,b\r\n", "\n\na,b\n\n"])
def test_a_header_alone_is_zero_rows(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == {"a": [], "b": []}


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, "a,b\n1,2\n\n3,4\n\n\n") == {"a": ["1", "3"], "b": ["2", "4"]}


def test_a_quoted_header_may_hold_commas_and_lines(tmp_path: Path) -> None:
    assert read(tmp_path, '"a,1","b\n2"\nx,y\n') == {"a,1": ["x"], "b\n2": ["y"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. A CSV source needs a header"),
        (b"\n\n", "is empty. A CSV source needs a header"),
        (b"a,b,a,b,c\n1,2,3,4,5\n", "columns with the same name: a, b"),
        (b"a,,c\n1,2,3\n", "column 2 of 3 has no name"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells, but the header has 2"),
        (b'a,b\n"x\ny",2\n\n1\n', "line 5: 1 cells, but the header has 2"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: the byte 0xFF is not UTF-8"),
        (b"a\xff,b\n1,2\n", "line 1: the byte 0xFF is not UTF-8"),
        (b"id;text\n1;x\n", 'the header is one column, .*"csv: {delimiter: ";"}|delimiter: ";"'),
        (b'a,b\n1,"2\n3,4\n', "line 2: a quote is opened in this row and never closed"),
        (b'a,b\n1,2\n3,"4', "line 3: a quote is opened in this row and never closed"),
        (b'a\n1\n"2\n', "line 3: a quote is opened in this row and never closed"),
        (b'a,b\n1,2\n3,"4""', "line 3: a quote is opened in this row and never closed"),
        (b'"a,b\n1,2\n', "line 1: a quote is opened in this row and never closed"),
    ],
)
def test_what_cannot_be_read_without_loss_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(OndineError, match=message):
        read(tmp_path, content)


def test_a_bad_line_far_into_a_large_file_is_found(tmp_path: Path) -> None:
    content = "a,b\n" + "1,2\n" * 2_000_000 + "3\n" + "1,2\n" * 10
    with pytest.raises(OndineError, match="line 2000002: 1 cells"):
        read(tmp_path, content)


def test_declared_types(tmp_path: Path) -> None:
    content = (
        "i,n,b,d,t,z,x\n"
        "1,19.90,true,2024-02-29,2024-12-31T23:59:58.5,2024-12-31 23:59+01:00,007\n"
        '-2,1e3,0,1969-12-31,2024-01-01,2024-12-31 23:59:00Z,""\n'
        ',"",,"","",,\n'
        " +3 ,.5,FALSE, 2000-01-01,2024-01-01 00:00,2024-12-31 23:59:00-0030,y\n"
    )
    columns = read(
        tmp_path,
        content,
        i="integer",
        n="number",
        b="boolean",
        d="date",
        t="timestamp",
        z="timestamp",
        x="text",
    )
    moment = datetime.datetime
    utc = datetime.UTC
    assert columns == {
        "i": [1, -2, None, 3],
        "n": [19.9, 1000.0, None, 0.5],
        "b": [True, False, None, False],
        "d": [
            datetime.date(2024, 2, 29),
            datetime.date(1969, 12, 31),
            None,
            datetime.date(2000, 1, 1),
        ],
        "t": [
            moment(2024, 12, 31, 23, 59, 58, 500000),
            moment(2024, 1, 1),
            None,
            moment(2024, 1, 1),
        ],
        "z": [
            moment(2024, 12, 31, 22, 59, tzinfo=utc),
            moment(2024, 12, 31, 23, 59, tzinfo=utc),
            None,
            moment(2025, 1, 1, 0, 29, tzinfo=utc),
        ],
        "x": ["007", "", None, "y"],
    }


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "1.0"),
        ("integer", "0x1F"),
        ("integer", "9223372036854775808"),
        ("integer", "1_000"),
        ("number", "nan"),
        ("number", "1e999"),
        ("number", '"1,5"'),
        ("boolean", "yes"),
        ("date", "31.12.2024"),
        ("date", "2023-02-29"),
        ("timestamp", "2024-13-01T00:00:00"),
        ("timestamp", "2024-12-31T23:59:00Z"),
        ("timestamp", "now"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, kind: str, value: str) -> None:
    good = {
        "integer": "1",
        "number": "1",
        "boolean": "1",
        "date": "2024-12-31",
        "timestamp": "2024-12-31 00:00:00",
    }[kind]
    shown = value.strip('"')
    with pytest.raises(OndineError, match=rf"'a', row 3 .*'{shown}' is not {kind}"):
        read(tmp_path, f"a,b\n{good},x\n,x\n{value},x\n{value},x\n", a=kind)


def test_a_type_for_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OndineError, match=r"no column stars\. Its columns: a"):
        read(tmp_path, "a\n1\n", stars="integer")


def test_the_nearest_column_is_named_and_not_thousands(tmp_path: Path) -> None:
    names = [f"column {n}" for n in range(5000)]
    with pytest.raises(OndineError) as refused:
        read(tmp_path, f"Stars , id,{','.join(names)}\n", stars="integer", id="integer")
    told = str(refused.value)
    assert "Its columns: 'Stars ', ' id', column 0, " in told
    assert told.endswith("column 17, ... Did you mean 'Stars ', ' id'?")


def test_types_of_an_empty_source_are_kept(tmp_path: Path) -> None:
    source = Source.model_validate({"path": "x.csv", "types": {"a": "integer", "t": "timestamp"}})
    table = read_source(source, csv_file(tmp_path, "a,t\n"))
    assert table.schema.types == [pa.int64(), pa.timestamp("us")]


def test_parquet_comes_as_it_is(tmp_path: Path) -> None:
    table = pa.table(
        {
            "s": ["a", "", None],
            "d": pa.array([1, 2, None], pa.decimal128(10, 2)),
            "t": pa.array([1, 2, None], pa.timestamp("ns", "Asia/Tokyo")),
            "l": [[1], [], None],
        }
    )
    path = tmp_path / "x.PARQUET"
    pq.write_table(table, path)
    source = Source(path="x.PARQUET")
    assert source_columns(source, path) == ["s", "d", "t", "l"]
    assert read_source(source, path).equals(table)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    offsets, bytes_ = pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")
    damaged = pa.StringArray.from_buffers(1, offsets, bytes_)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"fine": ["a"], "text": damaged}), path)
    with pytest.raises(OndineError, match=r"column 'text': .*Invalid UTF8"):
        read_source(Source(path="x.parquet"), path)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": ["x" * 1000] * 1000}), path, compression="none")
    whole = path.read_bytes()
    pages = whole[:10] + b"\xff" * 400 + whole[410:]
    footer = b"PAR1" + b"\xff" * 40 + (30).to_bytes(4, "little") + b"PAR1"
    for damaged in (pages, footer, b"PAR1", b""):
        path.write_bytes(damaged)
        with pytest.raises(OndineError, match="cannot be read as Parquet"):
            read_source(Source(path="x.parquet"), path)


def test_a_folder_named_like_a_hive_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "year=2024").mkdir()
    path = tmp_path / "year=2024" / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    assert read_source(Source(path="x.parquet"), path).column_names == ["a"]


def test_parquet_columns_with_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    for use in (source_columns, read_source):
        with pytest.raises(OndineError, match="same name: a"):
            use(Source(path="x.parquet"), path)


def test_a_relative_path_is_beside_the_declaration_first(tmp_path: Path) -> None:
    folder = tmp_path / "defs" / "reviews"
    folder.mkdir(parents=True)
    declared_in = folder / "defs.yaml"
    declared_in.touch()
    with pytest.raises(SourceNotFound) as error:
        resolve_path("x.csv", declared_in, tmp_path)
    assert str(folder / "x.csv") in str(error.value)
    assert str(tmp_path / "x.csv") in str(error.value)
    (tmp_path / "x.csv").touch()
    assert resolve_path("x.csv", declared_in, tmp_path) == tmp_path / "x.csv"
    (folder / "x.csv").touch()
    assert resolve_path("x.csv", declared_in, tmp_path) == folder / "x.csv"
    assert resolve_path(str(tmp_path / "x.csv"), declared_in, Path("/")) == tmp_path / "x.csv"
