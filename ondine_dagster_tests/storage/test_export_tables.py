"""Exports into tables of DuckDB and PostgreSQL: cell by cell, by key, and all at once."""

from __future__ import annotations

import datetime
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.export import Mode
from ondine_dagster.storage import export as export_module
from ondine_dagster.storage import export_duckdb
from ondine_dagster.storage.export import ExportResult, Table, export
from ondine_dagster.storage.export_table import Changes
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import take_snapshot
from ondine_dagster_tests.postgres import PASSWORD
from ondine_dagster_tests.storage.builders import NASTY, a_dataset, write_csv, write_results

UTC = datetime.UTC
_UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{}"


class Place:
    """A database, and how to look into it."""

    def __init__(self, url: str, file: Path | None, ask: Callable[[str], list[Any]]) -> None:
        self.url = DatabaseUrl.parse(url)
        self.file = file
        self.asks = ask

    def table(self, mode: Mode = "replace", name: str = "labels", **more: Any) -> Table:
        return Table(self.url, name, mode, self.file, **{"key": ("id",), **more})


@pytest.fixture
def duck(tmp_path: Path) -> Place:
    path = tmp_path / "out.duckdb"

    def ask(query: str) -> list[Any]:
        with duckdb.connect(str(path)) as connection:
            return connection.execute(query).fetchall()

    return Place(f"duckdb:///{path}", path, ask)


@pytest.fixture
def server(postgres_url: str) -> Place:
    import psycopg

    def ask(query: str) -> list[Any]:
        with psycopg.connect(postgres_url) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    return Place(postgres_url, None, ask)


@pytest.fixture(params=["duck", "server"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    return request.getfixturevalue(request.param)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def labelled(lake: Lake, tmp_path: Path, answers: Mapping[str, str]) -> None:
    """Make a source of these ids, with these answers."""
    source = write_csv(tmp_path / "x.csv", ["id", "text"], [(i, f"t{i}") for i in answers])
    snapshot = take_snapshot(lake, a_dataset(100, key="id"), source).snapshot
    for part in snapshot.partitions:
        write_results(lake, snapshot, part.key, dict(answers))


def exported(lake: Lake, to: Table, **more: Any) -> tuple[int, int, int]:
    changes = export(lake, "reviews", to, **more).changes
    assert changes is not None
    return changes.added, changes.overwritten, changes.removed


@pytest.mark.parametrize(
    ("mode", "changes", "rows"),
    [
        ("replace", (2, 0, 2), [("2", "new"), ("3", "c")]),
        ("update", (1, 1, 0), [("1", "a"), ("2", "new"), ("3", "c")]),
        ("append", (1, 0, 0), [("1", "a"), ("2", "b"), ("3", "c")]),
    ],
)
def test_what_each_mode_does_to_rows_that_are_there(
    lake: Lake, tmp_path: Path, place: Place, mode: Mode, changes: Any, rows: Any
) -> None:
    labelled(lake, tmp_path, {"1": "a", "2": "b"})
    assert exported(lake, place.table(mode)) == (2, 0, 0)
    labelled(lake, tmp_path, {"2": "new", "3": "c"})
    assert exported(lake, place.table(mode)) == changes
    assert place.asks("select id, label from labels order by id") == rows
    again = exported(lake, place.table(mode))  # nothing new: nothing twice
    assert again == {"replace": (2, 0, 2), "update": (0, 2, 0), "append": (0, 0, 0)}[mode]
    assert place.asks("select id, label from labels order by id") == rows


def test_rows_without_a_declared_key_are_known_by_their_content(
    lake: Lake, tmp_path: Path, place: Place
) -> None:
    labelled(lake, tmp_path, {"1": "a"})
    to = place.table("update", key=())
    assert exported(lake, to) == (1, 0, 0)
    assert exported(lake, to) == (0, 1, 0)
    ((key,),) = place.asks("select _row_key from labels")
    assert key


def test_columns_of_ones_own_stay_and_missing_ones_are_added(
    lake: Lake, tmp_path: Path, place: Place
) -> None:
    place.asks("create table labels (id varchar, checked_by varchar)")
    place.asks("insert into labels values ('1', 'ana')")
    labelled(lake, tmp_path, {"1": "a", "2": "b"})
    assert exported(lake, place.table("update")) == (1, 1, 0)
    found = place.asks("select id, checked_by, text, label from labels order by id")
    assert found == [("1", "ana", "t1", "a"), ("2", None, "t2", "b")]


def test_a_table_with_other_columns_is_made_anew_by_replace(
    lake: Lake, tmp_path: Path, place: Place
) -> None:
    place.asks("create table labels (id integer, old varchar)")
    place.asks("insert into labels values (7, 'x')")
    labelled(lake, tmp_path, {"1": "a"})
    assert exported(lake, place.table(), lineage=True) == (1, 0, 1)
    assert place.asks("select id, label, _outcome from labels") == [("1", "a", "ok")]


def test_a_table_without_the_key_is_refused(lake: Lake, tmp_path: Path, place: Place) -> None:
    place.asks("create table labels (other varchar)")
    labelled(lake, tmp_path, {"1": "a"})
    with pytest.raises(OndineError, match="has no column id, by which its rows are known"):
        export(lake, "reviews", place.table("append"))


@pytest.mark.parametrize(
    ("kind", "held", "keys"),
    [
        ("integer", "1", ("1", "2")),
        ("uuid", _UUID.format(1), (_UUID.format(1), _UUID.format(2))),
    ],
)
@pytest.mark.parametrize(
    ("mode", "labels"), [("update", ["a", "b"]), ("append", [None, "b"])], ids=["update", "append"]
)
def test_a_key_of_text_finds_its_row_under_another_type(
    lake: Lake,
    tmp_path: Path,
    place: Place,
    kind: str,
    held: str,
    keys: tuple[str, str],
    mode: Mode,
    labels: list[str | None],
) -> None:
    place.asks(f"create table labels (id {kind}, text varchar)")
    place.asks(f"insert into labels values ('{held}', 'old')")
    labelled(lake, tmp_path, dict(zip(keys, "ab", strict=True)))
    export(lake, "reviews", place.table(mode))
    rows = place.asks("select cast(id as varchar), label from labels order by id")
    assert rows == list(zip(keys, labels, strict=True))


def test_keys_that_another_type_would_change_are_refused(
    lake: Lake, tmp_path: Path, place: Place
) -> None:
    place.asks("create table labels (id integer)")
    labelled(lake, tmp_path, {"7": "a", "007": "b"})
    with pytest.raises(OndineError, match=r"the key id is (?i:integer) in the table"):
        export(lake, "reviews", place.table("update"))
    labelled(lake, tmp_path, {"seven": "a"})
    with pytest.raises(OndineError, match=r"seven.* It is in the key, id"):
        export(lake, "reviews", place.table("update"))
    assert place.asks("select * from labels") == []


def test_a_name_may_have_a_schema_and_quotes(lake: Lake, tmp_path: Path, place: Place) -> None:
    place.asks('create schema "my ""schema"')
    labelled(lake, tmp_path, {"1": "a"})
    to = place.table("update", name='my "schema.the labels; --')
    assert exported(lake, to) == (1, 0, 0)
    assert exported(lake, to) == (0, 1, 0)
    assert place.asks('select label from "my ""schema"."the labels; --"') == [("a",)]


def test_what_breaks_in_the_middle_changes_nothing(
    lake: Lake, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(lake, tmp_path, {"1": "a", "2": "b"})
    export(lake, "reviews", place.table())
    labelled(lake, tmp_path, {"3": "c", "4": "d"})
    gathered = export_module._Gathered.rows
    calls = iter(range(9))

    def breaks(self: Any, places: Any) -> pa.Table:
        if next(calls):
            raise ConnectionError
        return gathered(self, places)

    monkeypatch.setattr(export_module, "_CHUNK_ROWS", 1)
    monkeypatch.setattr(export_module._Gathered, "rows", breaks)
    with pytest.raises(ConnectionError):
        export(lake, "reviews", place.table())
    assert place.asks("select id from labels order by id") == [("1",), ("2",)]


def typed(lake: Lake, tmp_path: Path, columns: Mapping[str, Any], rows: int) -> None:
    table = pa.table({"id": [str(number) for number in range(rows)], **columns})
    pq.write_table(table, tmp_path / "x.parquet")
    dataset = a_dataset(100, source={"path": "x.parquet", "key": "id"})
    snapshot = take_snapshot(lake, dataset, tmp_path / "x.parquet").snapshot
    answers = {str(number): "ok" for number in range(rows)}
    write_results(lake, snapshot, snapshot.partitions[0].key, answers)


def read_back(lake: Lake, place: Place) -> dict[str, list[Any]]:
    export(lake, "reviews", place.table())
    names = "text day moment instant money big whole truth ratio bytes clock nested items kind"
    found = place.asks(f"select {names.replace(' ', ', ')} from labels order by cast(id as int)")
    return dict(zip(names.split(), map(list, zip(*found, strict=True)), strict=True))


def test_every_cell_comes_back_as_it_was(lake: Lake, tmp_path: Path, place: Place) -> None:
    rows = len(NASTY)

    def first(value: Any) -> list[Any]:
        return [value, *[None] * (rows - 1)]

    day = datetime.date(2024, 2, 29)
    moment = datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)
    instant = datetime.datetime(2024, 3, 31, 1, 30, tzinfo=UTC)
    nested = {"a": ["1", None, 'q"\n'], "ü": {"deep": "שלום"}}
    columns = {
        "text": pa.array(NASTY),
        "day": pa.array(first(day)),
        "moment": pa.array(first(moment), pa.timestamp("us")),
        "instant": pa.array(first(instant), pa.timestamp("ms", "Europe/Berlin")),
        "money": pa.array(first(Decimal("-12345678901234567890.10")), pa.decimal128(38, 2)),
        "big": pa.array(first(2**64 - 1), pa.uint64()),
        "whole": pa.array(first(-(2**63)), pa.int64()),
        "truth": pa.array(first(False)),
        "ratio": pa.array([math.nan, math.inf, -0.1, 1e-300, *[None] * (rows - 4)]),
        "bytes": pa.array(first(b"\x00\xff\\")),
        "clock": pa.array(first(datetime.time(23, 59, 59, 1)), pa.time64("us")),
        "nested": pa.array(first(nested)),
        "items": pa.array([["x", None], [], *[None] * (rows - 2)], pa.list_(pa.string())),
        "kind": pa.array(first("a")).dictionary_encode(),
    }
    typed(lake, tmp_path, columns, rows)
    found = read_back(lake, place)
    assert found["text"] == NASTY
    assert math.isnan(found["ratio"].pop(0))
    assert found.pop("ratio") == [math.inf, -0.1, 1e-300, *[None] * (rows - 4)]
    assert [json.loads(v) if isinstance(v, str) else v for v in found.pop("nested")] == first(
        nested
    )
    assert found.pop("items") == [["x", None], [], *[None] * (rows - 2)]
    assert [None if v is None else v.astimezone(UTC) for v in found.pop("instant")] == first(
        instant
    )
    assert found == {name: columns[name].to_pylist() for name in found}, (
        "the other columns as they were"
    )


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("text", pa.array(["a\0b"]), "the character NUL"),
        ("at", pa.array([1], pa.timestamp("ns")), "nanoseconds"),
        ("n" * 64, pa.array([1]), "longer than the 63 bytes"),
    ],
)
def test_what_postgresql_would_lose_is_refused(
    lake: Lake, tmp_path: Path, server: Place, column: str, values: Any, words: str
) -> None:
    typed(lake, tmp_path, {column: values}, 1)
    with pytest.raises(OndineError, match=words):
        export(lake, "reviews", server.table())
    assert server.asks("select count(*) from pg_tables where tablename = 'labels'") == [(0,)]


def test_a_password_is_in_no_message(lake: Lake, tmp_path: Path, server: Place) -> None:
    labelled(lake, tmp_path, {"1": "a"})
    server.asks("create table labels (id varchar)")
    server.asks("create view watched as select id from labels")
    wrong = DatabaseUrl.parse(server.url.text.replace("/test_", "/nowhere_"))
    assert PASSWORD not in str(server.table())
    for to in (server.table("replace"), Table(wrong, "t", "replace")):
        with pytest.raises(OndineError) as caught:
            export(lake, "reviews", to)
        assert PASSWORD not in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_two_exports_into_one_table_do_not_double_rows(
    lake: Lake, tmp_path: Path, server: Place
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    labelled(lake, tmp_path, {str(number): "a" for number in range(50)})
    with ThreadPoolExecutor(4) as pool:
        to = server.table("append")
        results = list(pool.map(lambda _: export(lake, "reviews", to), range(4)))
    assert server.asks("select count(*), count(distinct id) from labels") == [(50, 50)]
    assert sorted(one.changes.added for one in results if one.changes) == [0, 0, 0, 50]


def test_a_file_in_use_is_told(lake: Lake, tmp_path: Path, duck: Place) -> None:
    labelled(lake, tmp_path, {"1": "a"})
    (tmp_path / "out.duckdb").write_text("no database")
    with pytest.raises(OndineError, match=r"out\.duckdb"):
        export(lake, "reviews", duck.table())


# holds a file of DuckDB open until its input ends
_HOLDER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"


def test_a_file_that_another_process_has_open_is_waited_for(
    lake: Lake, tmp_path: Path, duck: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(lake, tmp_path, {"1": "a"})
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(duck.file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    with holder:
        holder.stdout.readline()
        monkeypatch.setattr(export_duckdb, "_PATIENCE_SECONDS", 0)
        with pytest.raises(OndineError, match="Close the program that has the file open"):
            export(lake, "reviews", duck.table())
        monkeypatch.setattr(export_duckdb, "_PATIENCE_SECONDS", 60)
        monkeypatch.setattr(export_duckdb.time, "sleep", lambda _: holder.stdin.close())
        assert exported(lake, duck.table()) == (1, 0, 0)


def test_the_result_says_what_changed(lake: Lake, tmp_path: Path, duck: Place) -> None:
    labelled(lake, tmp_path, {"1": "a"})
    to = duck.table()
    assert export(lake, "reviews", to) == ExportResult(to, 1, 0, 0, Changes(1))
