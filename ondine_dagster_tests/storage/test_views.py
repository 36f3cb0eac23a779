"""SQL over the lake: views as people expect them, and no way to touch a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import Snapshot, take_snapshot
from ondine_dagster.storage.views import add_table, connect, view_statements
from ondine_dagster_tests.storage.builders import a_dataset, write_csv, write_results


@pytest.fixture(params=["lake", "la[k*e]? it's"])
def lake(tmp_path: Path, request: pytest.FixtureRequest) -> Lake:
    return Lake(tmp_path / request.param)


def snap(lake: Lake, ids: str) -> Snapshot:
    source = write_csv(lake.root.parent / "x.csv", ["id", "text"], [(i, f"text {i}") for i in ids])
    return take_snapshot(lake, a_dataset(key="id"), source).snapshot


def answer(lake: Lake, snapshot: Snapshot, ids: str, asset: str = "results") -> None:
    """Write files where there are none; older ones stay as they are."""
    for part in snapshot.partitions:
        if not lake.exists("reviews", asset, part.key):
            write_results(lake, snapshot, part.key, {i: f"label {i}" for i in ids}, asset)


def by_statements(lake: Lake) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for statement in view_statements(lake):
        connection.execute(statement)
    return connection


Rows = list[tuple[object, ...]]
Run = Callable[[str], Rows]


@pytest.fixture(params=[connect, by_statements])
def run(request: pytest.FixtureRequest, lake: Lake) -> Run:
    """Both ways to the same views: our connection, and the statements in any DuckDB."""

    def run(query: str) -> Rows:
        with request.param(lake) as connection:
            rows: Rows = connection.execute(query).fetchall()
            return rows

    return run


def test_an_empty_lake_has_no_views(lake: Lake, run: Run) -> None:
    assert run("SELECT count(*) FROM duckdb_views() WHERE NOT internal") == [(0,)]
    assert view_statements(lake) == []


def test_results_are_in_input_order_without_removed_rows(lake: Lake, run: Run) -> None:
    answer(lake, snap(lake, "0123"), "0123")
    answer(lake, snap(lake, "4203"), "4203")
    assert run("FROM reviews.results SELECT id, label, _position, _partition") == [
        ("4", "label 4", 0, "rows-00002"),
        ("2", "label 2", 1, "rows-00001"),
        ("0", "label 0", 2, "rows-00000"),
        ("3", "label 3", 3, "rows-00001"),
    ]


def test_a_row_that_left_and_came_back_is_there_once(lake: Lake, run: Run) -> None:
    answer(lake, snap(lake, "01"), "01")
    snap(lake, "0")
    answer(lake, snap(lake, "01"), "01")
    assert run("SELECT id FROM reviews.results") == [("0",), ("1",)]


def test_rejected_rows_are_joined_too_and_assets_without_files_have_no_view(
    lake: Lake, run: Run
) -> None:
    answer(lake, snap(lake, "012"), "1", asset="rejected_rows")
    snap(lake, "210")
    assert run("SELECT id, _position FROM reviews.rejected_rows") == [("1", 1)]
    views = run("SELECT view_name FROM duckdb_views() WHERE schema_name = 'reviews' ORDER BY 1")
    assert views == [("rejected_rows",), ("snapshot",)]


def test_the_snapshot_is_the_current_one(lake: Lake, run: Run) -> None:
    snap(lake, "012")
    snap(lake, "31")
    assert run("SELECT id FROM reviews.snapshot ORDER BY _position") == [("3",), ("1",)]


@pytest.mark.behaviour("E-2b")
def test_empty_partitions_are_no_trouble(lake: Lake, run: Run) -> None:
    snapshot = snap(lake, "0123")
    write_results(lake, snapshot, "rows-00000", {})
    write_results(lake, snapshot, "rows-00001", {"2": "x"})
    assert run("SELECT id FROM reviews.results") == [("2",)]


def test_files_of_different_schemas_are_one_view(lake: Lake, run: Run) -> None:
    snapshot = snap(lake, "0123")
    write_results(lake, snapshot, "rows-00000", {"0": "a"})
    write_results(lake, snapshot, "rows-00001", {"2": "a"}, score=5)
    assert run("SELECT id, score FROM reviews.results") == [("0", None), ("2", 5)]


def test_peoples_own_assets_have_views(lake: Lake, run: Run) -> None:
    lake.write("reviews", "by day", None, pa.table({"n": [1]}))
    top = lake.root / "summary" / "summary.parquet"
    lake.write("summary", "x", None, pa.table({"n": [2]}))
    os.replace(lake.path("summary", "x", None), top)
    assert run('SELECT n FROM reviews."by day"') == [(1,)]
    assert run("SELECT n FROM summary") == [(2,)]


def test_results_without_a_snapshot_are_shown_as_they_are(lake: Lake, run: Run) -> None:
    lake.write("other", "results", "p", pa.table({"n": [1], "_partition": ["mine"]}))
    assert run("FROM other.results") == [(1, "mine")]


@pytest.mark.parametrize("key", ["a+b c%2F/ö", "2024-01-01", "a.b", ".x", "results", "a|b"])
def test_sql_finds_the_key_in_the_name_of_the_file(lake: Lake, key: str) -> None:
    """What the views do to match a file with its partition."""
    path = str(lake.path("d", "results", key))
    query = "SELECT url_decode(parse_filename(?, true))"
    assert duckdb.connect().execute(query, [path]).fetchall() == [(key,)]


def test_the_statements_work_from_any_folder(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Lake(Path(lake.root.name))
    relative.write("d", "x", None, pa.table({"n": [1]}))
    statements = view_statements(relative)
    monkeypatch.chdir("/")
    connection = duckdb.connect()
    for statement in statements:
        connection.execute(statement)
    assert connection.execute("FROM d.x").fetchall() == [(1,)]


def test_a_type_that_duckdb_does_not_know_closes_no_other_view(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write("reviews", "odd", None, pa.table({"n": pa.array([1], pa.decimal256(60, 2))}))
    lake.write("reviews", "plain", None, pa.table({"n": [1]}))
    with connect(lake) as connection:
        assert connection.execute("FROM reviews.plain").fetchall() == [(1,)]
    assert 'no view "reviews"."odd"' in caplog.text


def test_tables_can_be_added_after_the_door_is_closed(lake: Lake) -> None:
    with connect(lake) as connection:
        add_table(connection, "ledger", "attempts", pa.table({"a": [1, 2]}))
        add_table(connection, "ledger", "answers", pa.table({"b": [3]}))
        assert connection.execute("SELECT sum(a) FROM ledger.attempts").fetchall() == [(3,)]
        assert connection.execute("FROM ledger.answers").fetchall() == [(3,)]


def test_times_are_shown_in_utc(lake: Lake) -> None:
    lake.write("d", "x", None, pa.table({"t": pa.array([0], pa.timestamp("us", "Asia/Tokyo"))}))
    with connect(lake) as connection:
        rows = connection.execute("SELECT t::VARCHAR FROM d.x").fetchall()
    assert rows == [("1970-01-01 00:00:00+00",)]


REFUSED = "Permission Error|Cannot change configuration option"
WRITES = [
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY (SELECT 1 AS n) TO '{results}' (FORMAT parquet)",
    "COPY reviews.results TO '{lake}/reviews/results/rows-00001.parquet' (FORMAT parquet)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
    "EXPORT DATABASE '{folder}/all'",
    "ATTACH '{folder}/new.duckdb'",
    "ATTACH '{lake}/new.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET temp_directory = '{folder}/spill'",
    "CALL enable_logging('QueryLog', storage := 'file', storage_path := '{folder}/log')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('{results}')",
    "SELECT * FROM glob('{lake}/*')",
]


@pytest.mark.parametrize("statement", WRITES)
def test_no_statement_touches_a_file(lake: Lake, tmp_path: Path, statement: str) -> None:
    answer(lake, snap(lake, "01"), "01")
    results = lake.path("reviews", "results", "rows-00000")
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    text = statement.format(folder=tmp_path, lake=lake.root, results=results).replace(
        "it's", "it''s"
    )
    with connect(lake) as connection, pytest.raises(duckdb.Error, match=REFUSED):
        connection.execute(text)
    after = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    assert after == before
