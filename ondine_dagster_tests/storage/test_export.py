"""Exports: what people take away, in input order, whole or not at all."""

from __future__ import annotations

import csv
import datetime
import errno
import json
import math
import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook

from ondine_dagster.errors import OndineError
from ondine_dagster.storage import export as export_module
from ondine_dagster.storage import export_formats
from ondine_dagster.storage.export import ExportResult, export
from ondine_dagster.storage.export_formats import open_format
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.locate import locate
from ondine_dagster.storage.snapshot import Snapshot, take_snapshot
from ondine_dagster_tests.storage.builders import NASTY, a_dataset, write_csv, write_results

TEXTS = ["Привет 👋", 'say "hi", she\nsaid', "c", "d", "e"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def snap(lake: Lake, tmp_path: Path, ids: str, rows: int = 2) -> Snapshot:
    """Rows with the ids 0, 1, ... in the given order; the text follows from the id."""
    source = write_csv(tmp_path / "x.csv", ["id", "text"], [(i, TEXTS[int(i)]) for i in ids])
    return take_snapshot(lake, a_dataset(rows, key="id"), source).snapshot


def answer_all(lake: Lake, snapshot: Snapshot) -> None:
    """Write results where there are none; older files stay as they are."""
    for part in snapshot.partitions:
        if not lake.exists("reviews", "results", part.key):
            write_results(lake, snapshot, part.key, {str(n): f"label {n}" for n in range(9)})


def exported(lake: Lake, to: Path) -> list[str]:
    export(lake, "reviews", to)
    return [str(row["id"]) for row in pq.read_table(to).to_pylist()]


def test_csv_holds_source_and_output_columns_in_input_order(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "01234"))
    result = export(lake, "reviews", tmp_path / "out.csv")
    assert result == ExportResult(tmp_path / "out.csv", rows=5, rejected=0, missing=0)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["id", "text", "label"],
            *([str(n), text, f"label {n}"] for n, text in enumerate(TEXTS)),
        ]


@pytest.mark.behaviour("B-2d")
def test_the_export_follows_the_current_snapshot(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "0123"))
    answer_all(lake, snap(lake, tmp_path, "420"))  # 4 is new and on top, 1 and 3 are gone
    assert exported(lake, tmp_path / "out.parquet") == ["4", "2", "0"]


def test_a_row_that_left_and_came_back_comes_once(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "012"))
    snap(lake, tmp_path, "02")  # the file of rows-00000 still holds 1
    answer_all(lake, snap(lake, tmp_path, "012"))
    assert exported(lake, tmp_path / "out.parquet") == ["0", "1", "2"]


def test_rejected_and_missing_rows_are_counted_and_left_out(lake: Lake, tmp_path: Path) -> None:
    snapshot = snap(lake, tmp_path, "01234")
    write_results(lake, snapshot, "rows-00000", {"0": "a"})
    write_results(lake, snapshot, "rows-00000", {"1": "a"}, asset="rejected_rows")
    write_results(lake, snapshot, "rows-00001", {"2": "a", "3": "a"})
    result = export(lake, "reviews", tmp_path / "out.jsonl")
    assert (result.rows, result.rejected, result.missing) == (3, 1, 1)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "2", "3"]


def test_shuffled_rows_of_many_partitions_come_in_order(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More partitions than are held open and more rows than one chunk."""
    monkeypatch.setattr(export_module, "_CHUNK_ROWS", 37)
    ids = [str(number) for number in range(500)]
    source = tmp_path / "x.csv"
    take_snapshot(lake, a_dataset(30, key="id"), write_csv(source, ["id"], [[i] for i in ids]))
    random.Random(3).shuffle(ids)
    write_csv(source, ["id"], [[i] for i in ids])
    snapshot = take_snapshot(lake, a_dataset(30, key="id"), source).snapshot
    for part in snapshot.partitions:
        write_results(lake, snapshot, part.key, {i: f"label {i}" for i in ids})
    export(lake, "reviews", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["id"] == ids
    assert table["label"] == [f"label {i}" for i in ids]


def test_jsonl_keeps_every_script_readable(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "0"))
    export(lake, "reviews", tmp_path / "out.jsonl")
    line = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert line == '{"id": "0", "text": "Привет 👋", "label": "label 0"}\n'


def typed_results(lake: Lake, tmp_path: Path) -> pa.Table:
    source = pa.table(
        {
            "text": pa.array(["", None]),
            "day": pa.array([datetime.date(2024, 2, 29), None]),
            "time": pa.array([1, None], pa.timestamp("ns", "Asia/Tokyo")),
            "money": pa.array([Decimal("1.10"), None], pa.decimal256(50, 2)),
            "kind": pa.array(["a", None]).dictionary_encode(),
            "list": pa.array([["x", None], None]),
            "bytes": pa.array([b"\xff", None]),
            "float": pa.array([float("nan"), None]),
            "truth": pa.array([True, None]),
        }
    )
    pq.write_table(source, tmp_path / "x.parquet")
    dataset = a_dataset(source={"path": "x.parquet"})
    snapshot = take_snapshot(lake, dataset, tmp_path / "x.parquet").snapshot
    keys = lake.read("reviews", "snapshot", snapshot.version)["_row_key"].to_pylist()
    write_results(lake, snapshot, "rows-00000", dict.fromkeys(keys, "ok"))
    return source


def test_parquet_keeps_every_type_exactly(lake: Lake, tmp_path: Path) -> None:
    source = typed_results(lake, tmp_path)
    export(lake, "reviews", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names == [*source.schema.names, "label"]
    for name in source.schema.names:
        assert table.schema.field(name).type == source.schema.field(name).type
        assert str(table[name].to_pylist()) == str(source[name].to_pylist())


def test_csv_tells_null_from_empty_text_and_writes_every_type(lake: Lake, tmp_path: Path) -> None:
    typed_results(lake, tmp_path)
    export(lake, "reviews", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == [
        "text,day,time,money,kind,list,bytes,float,truth,label",
        (
            '"","2024-02-29","1970-01-01T00:00:00.000000001+00:00",1.10,"a","[""x"",null]","ff",'
            'nan,true,"ok"'
        ),
        ',,,,,,,,,"ok"',
    ]


def test_jsonl_writes_every_type_as_valid_json(lake: Lake, tmp_path: Path) -> None:
    typed_results(lake, tmp_path)
    export(lake, "reviews", tmp_path / "out.jsonl")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {
            "text": "",
            "day": "2024-02-29",
            "time": "1970-01-01T00:00:00.000000001+00:00",
            "money": "1.10",
            "kind": "a",
            "list": ["x", None],
            "bytes": "ff",
            "float": None,
            "truth": True,
            "label": "ok",
        },
        {**dict.fromkeys("text day time money kind list bytes float truth".split()), "label": "ok"},
    ]


def test_what_is_nested_is_valid_json(tmp_path: Path) -> None:
    nested = {
        "list": [1.5, math.nan],
        "struct": {"at": datetime.datetime(2026, 5, 1), "bytes": b"\xff", "n": -math.inf},
    }
    wanted = {
        "list": [1.5, None],
        "struct": {"at": "2026-05-01T00:00:00", "bytes": "ff", "n": None},
    }
    rows = pa.table({name: [value] for name, value in nested.items()})
    for ending in (".jsonl", ".csv"):
        with open_format(tmp_path / f"out{ending}", rows.schema) as file:
            file.write(rows)
            file.commit()
    assert json.loads((tmp_path / "out.jsonl").read_text()) == wanted
    with open(tmp_path / "out.csv", newline="") as text:
        (row,) = csv.DictReader(text)
    assert {name: json.loads(value) for name, value in row.items()} == wanted


def test_excel_keeps_numbers_and_days_and_makes_no_formula_of_text(
    lake: Lake, tmp_path: Path
) -> None:
    typed_results(lake, tmp_path)
    export(lake, "reviews", tmp_path / "out.xlsx")
    header, first, second = sheet(tmp_path / "out.xlsx")
    names = "text day time money kind list bytes float truth label".split()
    assert header == tuple(names)
    assert dict(zip(names, first, strict=True)) == {
        "text": None,  # a cell does not tell '' from nothing
        "day": datetime.datetime(2024, 2, 29),
        "time": "1970-01-01T00:00:00.000000001+00:00",
        "money": "1.10",
        "kind": "a",
        "list": '["x",null]',
        "bytes": "ff",
        "float": "nan",
        "truth": True,
        "label": "ok",
    }
    assert second == (*[None] * 9, "ok")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "=1+1"),
        ("Ünïcode 👍\nline", "Ünïcode 👍\nline"),
        (10**14, 10**14),
        (2**53 + 1, str(2**53 + 1)),
        (datetime.date(1850, 1, 1), "1850-01-01"),
        (pa.scalar(10**7, pa.date32()), "10000000d"),
        (pa.scalar(10**18, pa.timestamp("us")), f"{10**18}us"),
        (datetime.datetime(2026, 5, 1, 8, 30), datetime.datetime(2026, 5, 1, 8, 30)),
    ],
)
def test_excel_shows_a_value_whole(tmp_path: Path, value: object, shown: object) -> None:
    rows = pa.table({"x": pa.array([value])})
    with open_format(tmp_path / "out.xlsx", rows.schema) as file:
        file.write(rows)
        file.commit()
    assert sheet(tmp_path / "out.xlsx") == [("x",), (shown,)]
    kind = load_workbook(tmp_path / "out.xlsx")["results"]["A2"].data_type
    assert (kind == "s") == isinstance(shown, str)  # a formula reads like its text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a" * 32_768, r"column 'x', line 2 has 32,768 characters.*Export to \.csv or \.parquet"),
        ("\x01", "column 'x', line 2 holds a control character"),
    ],
)
def test_what_no_cell_of_excel_holds_is_refused(tmp_path: Path, value: str, message: str) -> None:
    rows = pa.table({"x": [value]})
    with (
        open_format(tmp_path / "out.xlsx", rows.schema) as file,
        pytest.raises(OndineError, match=message),
    ):
        file.write(rows)
    assert os.listdir(tmp_path) == []


def sheet(path: Path) -> list[tuple[object, ...]]:
    """Return what a spreadsheet shows, formulas as they are written."""
    return list(load_workbook(path)["results"].iter_rows(values_only=True))


def test_duckdb_keeps_every_row_with_its_type(lake: Lake, tmp_path: Path) -> None:
    source = typed_results(lake, tmp_path)
    export(lake, "reviews", tmp_path / "out.duckdb")
    with duckdb.connect(str(tmp_path / "out.duckdb"), read_only=True) as connection:
        (row, empty) = connection.sql("SELECT * FROM results").fetchall()
    assert row[:5] == ("", datetime.date(2024, 2, 29), row[2], "1.10", "a")  # no such decimal
    assert row[5:7] == (["x", None], b"\xff")
    assert empty == (*[None] * source.num_columns, "ok")
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


_KILLED = """
import os, sys
from pathlib import Path
import pyarrow as pa
from ondine_dagster.storage.export_formats import open_format
rows = pa.table({"x": ["x" * 1000] * 1000})
file = open_format(Path(sys.argv[1]), rows.schema)
file.write(rows)
os._exit(9)
"""


def test_what_a_killed_export_leaves_behind_goes_with_the_next(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "0"))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([sys.executable, "-c", _KILLED, str(out / "x.duckdb")], check=False)
    left = sorted(name.split(".", 4)[-1] for name in os.listdir(out))
    assert left == ["scratch.tmp", "scratch.tmp.wal", "tmp"]
    export(lake, "reviews", out / "x.duckdb")
    assert os.listdir(out) == ["x.duckdb"]


def test_lineage_is_added_on_request(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "01"))
    export(lake, "reviews", tmp_path / "out.parquet", lineage=True)
    names = pq.read_schema(tmp_path / "out.parquet").names
    lineage = ["_row_key", "_position", "_outcome", "_question_version"]
    assert names == ["id", "text", "label", *lineage]


def test_the_position_of_lineage_is_that_of_the_current_snapshot(
    lake: Lake, tmp_path: Path
) -> None:
    answer_all(lake, snap(lake, tmp_path, "01"))
    snap(lake, tmp_path, "10")  # the files are from before
    export(lake, "reviews", tmp_path / "out.parquet", lineage=True)
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert (table["id"], table["_position"]) == (["1", "0"], [0, 1])


def test_partitions_of_an_older_declaration_are_joined_by_name(lake: Lake, tmp_path: Path) -> None:
    snapshot = snap(lake, tmp_path, "0123")
    write_results(lake, snapshot, "rows-00000", {"0": "a", "1": "a"})
    write_results(lake, snapshot, "rows-00001", {"2": "a", "3": "a"}, score=5)
    export(lake, "reviews", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["score"].to_pylist() == [None, None, 5, 5]


def test_a_folder_that_may_not_be_written_to_is_told(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_all(lake, snap(lake, tmp_path, "01"))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "out/.x.csv.1f.tmp")

    monkeypatch.setattr(export_formats, "AtomicFile", refused)
    with pytest.raises(OndineError, match=r"Cannot export to .*y\.csv: Permission denied\.$"):
        export(lake, "reviews", tmp_path / "y.csv")


def test_types_that_cannot_be_joined_are_named(lake: Lake, tmp_path: Path) -> None:
    snapshot = snap(lake, tmp_path, "0123")
    write_results(lake, snapshot, "rows-00000", {"0": "a", "1": "a"}, score="high")
    write_results(lake, snapshot, "rows-00001", {"2": "a", "3": "a"}, score=5)
    with pytest.raises(OndineError, match=r"do not have the same types.*score"):
        export(lake, "reviews", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xls", r"\.xls. Known endings: \.csv, \.parquet, \.jsonl, \.xlsx, \.duckdb"),
        ("out", "ending is missing"),
        ("folder.csv", "it is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    lake: Lake, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    answer_all(lake, snap(lake, tmp_path, "01"))
    with pytest.raises(OndineError, match=message):
        export(lake, "reviews", tmp_path / name)


def test_columns_that_a_format_cannot_hold_leave_nothing_behind(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.month_day_nano_interval())])
    with pytest.raises(pa.ArrowNotImplementedError):
        open_format(tmp_path / "out.parquet", schema)
    assert os.listdir(tmp_path) == []


def test_nothing_to_export_is_said(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(OndineError, match=r"no results to export .* ondine-dagster run reviews"):
        export(lake, "reviews", tmp_path / "out.csv")
    snap(lake, tmp_path, "01")
    with pytest.raises(OndineError, match="no results to export"):
        export(lake, "reviews", tmp_path / "out.csv")


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl", ".xlsx", ".duckdb"])
def test_a_failed_export_leaves_the_old_file(lake: Lake, tmp_path: Path, ending: str) -> None:
    snapshot = snap(lake, tmp_path, "0123")
    answer_all(lake, snapshot)
    to = tmp_path / f"out{ending}"
    export(lake, "reviews", to)
    before = to.read_bytes()
    damaged = lake.path("reviews", "results", "rows-00001")
    size = damaged.stat().st_size
    damaged.write_bytes(b"\0" * (size // 2) + damaged.read_bytes()[size // 2 :])
    with pytest.raises((OndineError, OSError)):
        export(lake, "reviews", to)
    assert to.read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if ".tmp" in name]


def test_an_export_replaces_no_database_and_adds_no_file_to_a_folder_that_rows_come_from(
    lake: Lake, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_csv(tmp_path / "in" / "a.csv", ["text"], [["x"]])
    with duckdb.connect(str(tmp_path / "x.duckdb")) as shop:
        shop.execute("create table letters as select 'x' as text")
    database = "duckdb:///x.duckdb"
    for source, to in (
        ({"path": "in/"}, "in/out.csv"),
        ({"database": database, "table": "letters"}, "x.duckdb"),
        ({"database": database, "query": "select text from letters"}, "x.duckdb"),
    ):
        dataset = a_dataset(source=source)
        take_snapshot(lake, dataset, locate(dataset, tmp_path / "y", tmp_path, dict))
        with pytest.raises(OndineError, match="is the source of reviews"):
            export(lake, "reviews", tmp_path / to)


def test_an_export_never_replaces_the_source_or_a_file_of_the_lake(
    lake: Lake, tmp_path: Path
) -> None:
    typed_results(lake, tmp_path)
    before = (tmp_path / "x.parquet").read_bytes()
    with pytest.raises(OndineError, match="is the source of reviews"):
        export(lake, "reviews", tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").read_bytes() == before
    with pytest.raises(OndineError, match="lies in the lake"):
        export(lake, "reviews", lake.root / "reviews" / "mine.csv")


def as_read(path: Path) -> list[str | None]:
    """Return the column `text` as programs read it, NULL apart from the empty text."""
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line)["text"] for line in lines]
    if path.suffix == ".parquet":
        return pq.read_table(path)["text"].to_pylist()
    nulls = pa_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    lines_in_cells = pa_csv.ParseOptions(newlines_in_values=True)
    whole = pa_csv.ReadOptions(block_size=1 << 24)
    table = pa_csv.read_csv(path, whole, lines_in_cells, nulls)
    return table["text"].to_pylist()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_any_text_comes_back_from_a_file_as_it_was(lake: Lake, tmp_path: Path, ending: str) -> None:
    nasty = [*NASTY, "nul \0 and \x1b[31m", "=1+1", " spaces ", "\u2028\u2029", "\ufeff"]
    pq.write_table(pa.table({"text": nasty, "n": range(len(nasty))}), tmp_path / "x.parquet")
    dataset = a_dataset(100, source={"path": "x.parquet"})
    snapshot = take_snapshot(lake, dataset, tmp_path / "x.parquet").snapshot
    keys = lake.read("reviews", "snapshot", snapshot.version)["_row_key"].to_pylist()
    write_results(lake, snapshot, "rows-00000", dict.fromkeys(keys, "ok"))
    out = tmp_path / f"out.{ending}"
    export(lake, "reviews", out)
    assert as_read(out) == nasty


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_small_amounts_are_written_without_an_exponent(tmp_path: Path, name: str) -> None:
    amounts = [Decimal("0.000000000000"), Decimal("0.000000057093"), None]
    rows = pa.table({"cost": pa.array(amounts, pa.decimal128(38, 12))})
    file = open_format(tmp_path / name, rows.schema)
    file.write(rows)
    file.commit()
    text = (tmp_path / name).read_text()
    assert "0.000000000000" in text
    assert "0.000000057093" in text
    assert "E-" not in text


def test_the_folder_of_an_export_is_made(lake: Lake, tmp_path: Path) -> None:
    answer_all(lake, snap(lake, tmp_path, "01"))
    export(lake, "reviews", tmp_path / "new" / "folder" / "out.csv")
    assert (tmp_path / "new/folder/out.csv").read_text().startswith("id,text,label\n")
