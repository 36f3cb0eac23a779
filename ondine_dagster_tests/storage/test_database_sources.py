"""Sources that are queries: every value as the database has it, in an order that stays."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.locate import locate
from ondine_dagster.storage.located import Elsewhere, NotWatchable
from ondine_dagster.storage.snapshot import rows_of, take_snapshot
from ondine_dagster.storage.sources import SourceNotFound
from ondine_dagster_tests.postgres import PASSWORD, Postgres
from ondine_dagster_tests.spec.declarations import attributes, only_problem

NASTY = (
    *(
        "",
        "NULL",
        'say "hi", it\'s',
        "two\nlines\r\nand\rmore",
        "{{ braces }} %s :name ?",
        "\ttab ",
    ),
    *("Привет", "مرحبا بالعالم", "日本語 👩‍👩‍👧", "007", "1e400", "=1+1", "x" * 1_000_000),
)
SHOP = "postgresql://shop:hunter2@db.example.com/shop"


def found(folder: Path, environ: Mapping[str, str] | None = None, **source: Any) -> Elsewhere:
    dataset = Dataset.model_validate(attributes(source=source))
    place = locate(dataset, folder / "defs.yaml", folder / "project", lambda: environ or {})
    assert not isinstance(place, Path)
    return place


def read(folder: Path, **source: Any) -> pa.Table:
    place = found(folder, **source)
    table, counts = place.read()
    assert place.columns() == table.column_names
    assert [count.rows for count in counts] == [table.num_rows]
    return table


def sqlite_file(path: Path, *statements: str, rows: tuple[Any, ...] = ()) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
        connection.executemany("insert into t values (?, ?)", rows)
    return path


def duckdb_file(path: Path, *statements: str) -> Path:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def in_postgres(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


# every cell


def test_text_comes_from_sqlite_as_it_is(tmp_path: Path) -> None:
    rows = (*enumerate(NASTY), (len(NASTY), None))
    sqlite_file(tmp_path / "shop.sqlite", "create table t (id integer, text)", rows=rows)

    table = read(tmp_path, database="sqlite:///shop.sqlite", table="t", key="id")

    assert table.to_pydict() == {"id": [*range(14)], "text": [*NASTY, None]}
    assert table.schema.field("id").type == pa.int64()


def test_text_comes_from_duckdb_as_it_is(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute("create table t (id integer, text varchar)")
        connection.executemany("insert into t values (?, ?)", [*enumerate(NASTY), (13, None)])

    table = read(tmp_path, database="duckdb:///shop.duckdb", table="t", key="id")

    assert table.to_pydict() == {"id": [*range(14)], "text": [*NASTY, None]}


def test_text_comes_from_postgres_as_it_is(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table t (id int, text text)")
        rows = [*enumerate(NASTY), (13, None)]
        connection.cursor().executemany("insert into t values (%s, %s)", rows)

    table = read(tmp_path, database=postgres_url, table="public.t", key="id")

    assert table.to_pydict() == {"id": [*range(14)], "text": [*NASTY, None]}


_AT = datetime.datetime(2020, 1, 1, 8, 0, 0, 123456)
_TYPED = """
    create table t (
        small smallint, large bigint, price numeric(10, 2), exact numeric, is_good boolean,
        part real, half double precision, day date, at timestamp, zoned timestamptz, clock time,
        raw bytea, id uuid, document json, sorted jsonb, tags text[], numbers int[], ago interval,
        address inet, empty text, mood mood
    )
"""
_VALUES = """
    insert into t values (
        -32768, 9223372036854775807, 19.90, 0.10000000000000000000000001, true, 0.5, 0.1,
        '2020-02-29', '2020-01-01 08:00:00.123456', '2020-01-01 10:00:00.123456+02', '23:59:59',
        '\\x00ff', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b": 1.10,  "a": [null]}',
        '{"b": 1.10, "a": [null]}', '{a,"b,c",null}', '{1,null}', '1 mon 2 days', '10.0.0.1', '',
        'fine'
    )
"""
# what it is, and as which type of Arrow it is kept
_KEPT: dict[str, tuple[Any, pa.DataType]] = {
    "small": (-32768, pa.int16()),
    "large": (9223372036854775807, pa.int64()),
    "price": (Decimal("19.90"), pa.decimal128(10, 2)),
    "exact": ("0.10000000000000000000000001", pa.string()),
    "is_good": (True, pa.bool_()),
    "part": (0.5, pa.float32()),
    "half": (0.1, pa.float64()),
    "day": (datetime.date(2020, 2, 29), pa.date32()),
    "at": (_AT, pa.timestamp("us")),
    "zoned": (_AT.replace(tzinfo=datetime.UTC), pa.timestamp("us", "UTC")),
    "clock": (datetime.time(23, 59, 59), pa.time64("us")),
    "raw": (b"\x00\xff", pa.binary()),
    "id": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", pa.string()),
    "document": ('{"b": 1.10,  "a": [null]}', pa.string()),
    "sorted": ('{"a": [null], "b": 1.10}', pa.string()),
    "tags": (["a", "b,c", None], pa.list_(pa.string())),
    "numbers": ([1, None], pa.list_(pa.int32())),
    "ago": ("1 mon 2 days", pa.string()),
    "address": ("10.0.0.1", pa.string()),
    "empty": ("", pa.string()),
    "mood": ("fine", pa.string()),
}


def test_types_of_postgres_are_kept_and_do_not_depend_on_the_server(
    tmp_path: Path, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    in_postgres(
        postgres_url,
        "create type mood as enum ('fine')",
        _TYPED,
        _VALUES,
        f"alter database {name} set timezone to 'Asia/Tokyo'",
        f"alter database {name} set datestyle to 'German'",
        f"alter database {name} set intervalstyle to 'iso_8601'",
    )

    table = read(tmp_path, database=postgres_url, table="t")

    assert table.to_pylist() == [{name: value for name, (value, _) in _KEPT.items()}]
    assert list(table.schema.types) == [kind for _, kind in _KEPT.values()]
    in_postgres(postgres_url, "delete from t")
    assert list(read(tmp_path, database=postgres_url, table="t").schema.types) == [
        kind for _, kind in _KEPT.values()
    ]


def test_types_of_duckdb_are_kept(tmp_path: Path) -> None:
    query = """
        select 19.90::decimal(10, 2) price, sum(2::int) total, date '2020-02-29' as day,
            timestamptz '2020-01-01 10:00:00.123456+02' zoned, interval 1 month ago, null gone,
            {'a': 1, 'b': ['x', null]} nested, map {'k': 1} pairs, '{"a": 1.10}'::json document,
            'fine'::enum('fine') mood, '\\x00'::blob raw, 1 as a, 2 as "A"
    """

    table = read(tmp_path, sql=query)

    assert table.to_pylist() == [
        {
            "price": Decimal("19.90"),
            "total": Decimal(2),
            "day": datetime.date(2020, 2, 29),
            "zoned": _AT.replace(tzinfo=datetime.UTC),
            "ago": "1 month",
            "gone": None,
            "nested": {"a": 1, "b": ["x", None]},
            "pairs": [("k", 1)],
            "document": '{"a": 1.10}',
            "mood": "fine",
            "raw": b"\x00",
            "a": 1,
            "A": 2,
        }
    ]
    assert table.schema.field("zoned").type == pa.timestamp("us", "UTC")
    take_snapshot(Lake(tmp_path / "lake"), *_declared(tmp_path, sql=query))  # and can be stored


def test_a_column_of_sqlite_has_the_type_of_its_values(tmp_path: Path) -> None:
    rows = ((1, 1.5), (2, None), ("x", 2.5))
    sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)", rows=rows)

    table = read(tmp_path, database="sqlite:///s.sqlite", query="select a, b, x'00' c from t")

    assert table.sort_by("b").to_pydict() == {
        "a": ["1", "x", "2"],
        "b": [1.5, 2.5, None],
        "c": [b"\0"] * 3,
    }


def test_a_query_over_files_finds_them_beside_the_declaration(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "project" / "more").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_text("id,n\n2,x\n1,y\n")
    (tmp_path / "project" / "more" / "b.csv").write_text("id,m\n1,z\n")

    query = "select id, n, m from 'data/*.csv' left join 'more/b.csv' using (id)"

    assert read(tmp_path, sql=query, key="id").to_pydict() == {
        "id": [1, 2],
        "n": ["y", "x"],
        "m": ["z", None],
    }


# the order


def _declared(folder: Path, **source: Any) -> tuple[Dataset, Elsewhere]:
    return Dataset.model_validate(attributes(source=source)), found(folder, **source)


@pytest.mark.parametrize("key", [{}, {"key": "id"}])
def test_rows_in_another_order_are_the_same_snapshot(
    tmp_path: Path, postgres_url: str, key: dict[str, str]
) -> None:
    rows = "('b', 2, '{x}'), ('a', 10, null), (null, 9, '{x,y}'), ('a', 9, '{}')"
    insert = f"insert into t values {rows}"
    in_postgres(postgres_url, "create table t (text text, id int, tags text[])", insert)
    lake = Lake(tmp_path / "lake")
    declared = _declared(tmp_path, database=postgres_url, table="t", **key)
    if key:
        in_postgres(postgres_url, "update t set id = 0 where text is null")
    first = take_snapshot(lake, *declared).snapshot

    in_postgres(
        postgres_url,
        "create table other as select * from t",
        "delete from t",
        "insert into t select * from other order by id desc, text desc",
    )
    second = take_snapshot(lake, *declared)

    assert second.snapshot.version == first.version
    assert not second.changed
    ids = rows_of(first, first.partitions[0].key)["id"].to_pylist()
    assert ids == ([0, 2, 9, 10] if key else [9, 10, 2, 9])


def test_the_order_of_the_query_itself_stays(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)", rows=((1, "x"), (3, "y"), (2, "z")))

    def ids(query: str) -> list[int]:
        table = read(tmp_path, database="sqlite:///s.sqlite", query=query, key="a")
        return table["a"].to_pylist()

    assert ids("select * from t order by a desc") == [3, 2, 1]
    assert ids("select * from t ORDER  BY b -- order") == [1, 3, 2]
    assert ids("select * from (select * from t order by a desc)") == [1, 2, 3]
    assert ids("select *, 'order by' as c from t /* order by a desc */") == [1, 2, 3]
    assert ids("select a, row_number() over (order by a desc) as r from t") == [1, 2, 3]


def test_duckdb_keeps_the_order_of_many_rows(tmp_path: Path) -> None:
    query = "select a, interval 1 day as b from range(500_000) t(a) order by a % 7, a desc"
    ids = read(tmp_path, sql=query)["a"].to_pylist()
    assert ids == sorted(range(500_000), key=lambda a: (a % 7, -a))


# what is refused


def test_no_query_writes(tmp_path: Path, postgres_url: str) -> None:
    create, insert = "create table t (a int, b text)", "insert into t values (1, 'x')"
    sqlite_file(tmp_path / "s.sqlite", create, insert)
    duckdb_file(tmp_path / "s.duckdb", create, insert)
    in_postgres(postgres_url, create, insert)

    for url in ("sqlite:///s.sqlite", "duckdb:///s.duckdb", postgres_url):
        for query in (
            "delete from t",
            "drop table t",
            "insert into t values (9, 'x')",
            "select 1; drop table t",
            "with x as (insert into t values (9, 'x') returning *) select * from x",
            f"copy t to '{tmp_path}/stolen.csv'",
            f"attach '{tmp_path}/new.duckdb'" if "duckdb" in url else "vacuum",
            " ;",
        ):
            with pytest.raises(OndineError):
                found(tmp_path, database=url, query=query).read()
        assert read(tmp_path, database=url, table="t").to_pylist() == [{"a": 1, "b": "x"}]
    assert {file.name for file in tmp_path.iterdir()} == {"s.sqlite", "s.duckdb"}


def test_columns_with_one_name_are_explained(tmp_path: Path, postgres_url: str) -> None:
    sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)")
    duckdb_file(tmp_path / "s.duckdb", "create table t (a int)")
    for url in ("sqlite:///s.sqlite", "duckdb:///s.duckdb", postgres_url):
        with pytest.raises(OndineError, match="columns with the same name: id"):
            found(tmp_path, database=url, query="select 1 as id, 2 as id").read()


def test_a_table_that_is_not_there_is_answered_with_those_that_are(
    tmp_path: Path, postgres_url: str
) -> None:
    sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)")
    in_postgres(postgres_url, "create schema shop", "create table shop.reviews (a int)")
    duckdb_file(tmp_path / "s.duckdb", "create table reviews (a int)")
    for url, there in (
        ("sqlite:///s.sqlite", "no such table: revews.*there are: t"),
        ("duckdb:///s.duckdb", 'Did you mean "reviews'),
        (postgres_url, "does not exist.*there are: shop.reviews"),
    ):
        with pytest.raises(OndineError, match=f"(?s)table revews.*{there}"):
            found(tmp_path, database=url, table="revews").read()


def test_values_that_cannot_be_kept_are_refused(tmp_path: Path, postgres_url: str) -> None:
    for query, words in (
        ("select 'infinity'::timestamptz as at", "cast the column to text"),
        ("select 'NaN'::numeric(4, 2) as price", "'price' cannot be kept"),
        ("select '{{1},{2}}'::int[] as cells", "'cells' cannot be kept"),
    ):
        with pytest.raises(OndineError, match=words):
            found(tmp_path, database=postgres_url, query=query).read()
    sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)", rows=((1, b"x"), (2, "y")))
    with pytest.raises(OndineError, match="'b' holds blobs and other values"):
        found(tmp_path, database="sqlite:///s.sqlite", table="t").read()
    with pytest.raises(OndineError, match="Could not decode to UTF-8"):
        query = "select cast(x'ff' as text) as latin"
        found(tmp_path, database="sqlite:///s.sqlite", query=query).read()
    latin = postgres_url.rpartition("/")[2] + "_latin"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {latin} encoding 'SQL_ASCII' template template0")
    query = "select convert_from('\\xff', 'SQL_ASCII') as latin"
    with pytest.raises(OndineError, match="invalid byte sequence"):
        found(tmp_path, database=f"{postgres_url}_latin", query=query).read()


def test_nothing_is_fetched_and_nothing_of_ours_is_a_table(tmp_path: Path) -> None:
    for text, words in (
        ("select * from 's3://bucket/x.parquet'", "Extensions are not fetched"),
        ("select * from 'https://example.com/x.csv'", "Extensions are not fetched"),
        ("select * from sqlite_scan('x', 'y')", "Extensions are not fetched"),
        ("select * from query", "query does not exist"),  # a variable of the code that asks
        ("set lock_configuration = false", "one SELECT"),
    ):
        with pytest.raises(OndineError, match=words):
            found(tmp_path, sql=text).read()


def test_a_file_that_is_no_database_is_refused_and_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("hello")
    for kind in ("sqlite", "duckdb"):
        with pytest.raises(OndineError, match=r"x\.db.* not a"):
            found(tmp_path, database=f"{kind}:///x.db", table="t").read()
        with pytest.raises(SourceNotFound, match="four slashes"):
            found(tmp_path, database=f"{kind}:///other.db", table="t")
    assert not (tmp_path / "other.db").exists()


def test_a_file_that_somebody_writes_is_not_waited_for(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "s.duckdb")) as writer:
        writer.execute("create table t (a int)")
        with pytest.raises(OndineError, match="Close the program that has the file open"):
            found(tmp_path, database="duckdb:///s.duckdb", table="t").read()


# secrets


def test_a_password_is_in_no_words(
    tmp_path: Path, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.new_database()
    wrong = postgres.url("postgres", "hunter2-wrong")
    bad_port = url.replace(f":{postgres.port}", ":1")
    for bad in (
        wrong,
        bad_port,
        f"{url}?sslmode=no",
        f"{url}?password=hunter2&nope=1",
        url + "%zz",
    ):
        with pytest.raises(OndineError) as caught:
            found(tmp_path, database=bad, table="t").read()
        text = f"{caught.value!r} {caught.value.__cause__} {caplog.text}"
        assert not any(secret in text for secret in ("hunter2", PASSWORD, "s3cret"))


def test_a_declaration_hides_the_url_and_refusals_do_not_quote_it() -> None:
    dataset = Dataset.model_validate(attributes(source={"database": SHOP, "table": "t"}))
    for text in (repr(dataset), str(dataset.model_dump()), dataset.model_dump_json()):
        assert "hunter2" not in text
    for url in (
        SHOP.replace("postgresql", "mysql"),
        SHOP.replace("hunter2", "hunter2/x"),
        SHOP.replace("hunter2", "hunter2@x"),
        SHOP.replace("hunter2", "hunter2#x"),
        SHOP.replace("example.com", "example.com:hunter2"),
        SHOP.removesuffix("/shop"),
    ):
        problem = only_problem(attributes(source={"database": url, "table": "t"}))
        assert "hunter2" not in problem.message
        assert problem.path == "source.database"
    problem = only_problem(attributes(source={"database_variable": SHOP, "table": "t"}))
    assert "hunter2" not in problem.message


def test_the_url_may_stand_in_the_environment(tmp_path: Path, postgres_url: str) -> None:
    source = {"database_variable": "SHOP_URL", "query": "select 1 as id"}

    with pytest.raises(OndineError, match="SHOP_URL is not set"):
        found(tmp_path, **source)
    with pytest.raises(OndineError) as caught:
        found(tmp_path, {"SHOP_URL": "hunter2"}, **source)

    assert "hunter2" not in str(caught.value)
    place = found(tmp_path, {"SHOP_URL": postgres_url}, **source)
    assert place.read()[0].to_pydict() == {"id": [1]}
    assert PASSWORD not in place.shown and "s3cret" not in place.shown + repr(place)


# what the sensor sees


def test_a_database_file_is_watched_by_itself(tmp_path: Path) -> None:
    file = sqlite_file(tmp_path / "s.sqlite", "create table t (a, b)")
    place = found(tmp_path, database="sqlite:///s.sqlite", table="t")
    before = place.pieces()

    sqlite_file(file, rows=((1, "x"),))

    assert before and place.pieces() != before


def test_a_url_may_name_the_driver_that_others_use(tmp_path: Path, postgres_url: str) -> None:
    for scheme in ("postgres", "postgresql+psycopg2", "postgresql+asyncpg"):
        url = postgres_url.replace("postgresql", scheme, 1)
        assert read(tmp_path, database=url, query="select 1 as a").to_pydict() == {"a": [1]}


def test_a_server_is_watched_by_a_query(tmp_path: Path, postgres_url: str) -> None:
    in_postgres(postgres_url, "create table t (a int)")
    blind = found(tmp_path, database=postgres_url, table="t")
    watched = found(tmp_path, database=postgres_url, table="t", watch="select count(*) from t")

    with pytest.raises(NotWatchable, match=r"source\.watch"):
        blind.pieces()
    before = watched.pieces()
    assert before == watched.pieces()

    in_postgres(postgres_url, "insert into t values (1)")
    assert watched.pieces() != before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "x.csv", "sql": "select 1"}, "has path and sql"),
        ({"database": "sqlite:///x"}, "neither table nor query"),
        ({"database": "sqlite:///x", "table": "t", "query": "q"}, "table and query"),
        ({"path": "x.csv", "query": "select 1"}, "is for a database"),
        ({"path": "x.csv", "watch": "select 1"}, "is for databases and `sql`"),
        ({"sql": "select 1", "types": {"a": "text"}}, "is for CSV files"),
        ({"sql": "select 1", "sheet": "May"}, "is no Excel file"),
        ({"database": "sqlite://", "table": "t"}, "names no file"),
        ({"database": "sqlite:///:memory:", "table": "t"}, "names no file"),
        ({"database": "mysql://h/d", "table": "t"}, "is not the URL of a database"),
    ],
)
def test_contradictions_are_refused(source: dict[str, Any], words: str) -> None:
    assert words in only_problem(attributes(source=source)).message
