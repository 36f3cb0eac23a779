"""`ondine-dagster sql`: what can be asked, and how the answer looks in a pipe and on a terminal."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from decimal import Decimal

import pytest
from rich.console import Console

from ondine_dagster.cli.drawing import draw, fitted
from ondine_dagster.cli.sql import open_database, write_csv
from ondine_dagster.simulator import FaultPlan
from ondine_dagster.storage.ledger_tables import ledger_table, mentioned_tables
from ondine_dagster_tests.cli.typing_person import PATIENCE_SECONDS, Person


def table(person: Person, query: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(person.asks(query))))


def test_a_pipe_gets_a_header_and_rows_and_nothing_else(person: Person) -> None:
    assert person.asks("select 1 as a, 'x' as b") == "a,b\n1,x\n"


def test_csv_keeps_null_from_empty_text_and_quotes_what_needs_it(person: Person) -> None:
    query = """select null as a, '' as b, 'x,y' as c, 'say "hi"' as d, E'two\\nlines' as e"""
    assert person.asks(query) == 'a,b,c,d,e\n,"","x,y","say ""hi""","two\nlines"\n'


def test_values_read_as_people_write_them(person: Person) -> None:
    query = (
        "select true as a, 0.000000012::decimal(18,12) as b, [1, 2] as c, "
        "timestamp '2026-01-02 03:04:05' as d, {'k': 1.5::decimal(3,1)} as e, 'ab'::blob as f"
    )
    (row,) = table(person, query)
    assert row["a"] == "true"
    assert row["b"] == "0.000000012000"
    assert json.loads(row["c"]) == [1, 2]
    assert row["d"] == "2026-01-02 03:04:05"
    assert json.loads(row["e"]) == {"k": "1.5"}
    assert row["f"] == "6162"


def test_the_ledger_adds_up_to_the_bill_in_exact_dollars(person: Person) -> None:
    person.write(15)
    person.runs()
    bill = person.simulator.bill.totals
    (attempts,) = table(person, "select sum(cost_usd) as usd, count(*) as n from ledger.attempts")
    spend = table(
        person,
        "select unit, settled, settled_usd, reserved_usd from ledger.spend "
        "where scope = 'dataset:notes' and \"window\" = 'total' order by unit",
    )
    paid = Decimal(bill.picodollars).scaleb(-12)
    assert (Decimal(attempts["usd"]), attempts["n"]) == (paid, "15")
    assert [row["unit"] for row in spend] == ["requests", "tokens", "usd"]
    assert (spend[0]["settled"], spend[0]["settled_usd"]) == ("15", "")
    assert (Decimal(spend[2]["settled_usd"]), spend[2]["settled"]) == (paid, "")


def test_ids_are_hex_and_times_are_timestamps(person: Person) -> None:
    person.write(3)
    person.runs()
    query = (
        "select count(*) as n from ledger.answers a join ledger.attempts t on a.attempt = t.id "
        "join notes.results r on r._answer_key = a.answer_key where t.t_end >= t.t_open "
        "and t.t_open > now() - interval 1 hour"
    )
    assert table(person, query) == [{"n": "3"}]


@pytest.mark.behaviour("E-1")
def test_the_calls_of_each_row_are_numbered_from_one_without_gaps(person: Person) -> None:
    person.write(9)  # ten failures in a row would be an outage
    person.simulator.fail(FaultPlan(rates={"503 times=1": 1.0}))
    person.runs()
    calls = table(person, "select row_key, call_index, verdict from ledger.asks order by 1, 2")
    by_row: dict[str, list[str]] = {}
    for call in calls:
        by_row.setdefault(call["row_key"], []).append(call["call_index"])
    assert by_row == {f"r{n}": ["1", "2"] for n in range(9)}


def test_only_the_tables_that_a_query_mentions_are_loaded() -> None:
    assert mentioned_tables("select * from notes.results") == []
    assert mentioned_tables("select * from answers, spend") == []
    assert mentioned_tables('SELECT 1 FROM "ledger"."ANSWERS", ledger.spend') == [
        "answers",
        "spend",
    ]


@pytest.mark.parametrize("name", ["attempts", "asks", "answers", "spend"])
def test_a_ledger_that_is_not_there_yet_is_an_empty_table(person: Person, name: str) -> None:
    assert ledger_table(person.settings.ledger_path, name).num_rows == 0
    assert person.asks(f"select count(*) as n from ledger.{name}") == "n\n0\n"
    assert not person.settings.ledger_path.exists()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("selct 1", "syntax error"),
        ("select * from notes.results", "There is no lake at"),
        ("  ", "The query is empty"),
        ("copy (select 1) to 'x.csv'", "only reads, and this is a COPY statement"),
        ("create table t as select 1", "only reads, and this is a CREATE statement"),
        ("select 1; drop table t", "only reads, and this is a DROP statement"),
    ],
)
def test_a_query_that_fails_is_one_readable_message(person: Person, query: str, words: str) -> None:
    result = person.types("sql", query)
    assert result.exit_code == 1
    assert words in result.stderr
    assert (result.stdout, "Traceback" in result.stderr) == ("", False)


@pytest.mark.parametrize("arguments", [(), ("select 1", "--views")])
def test_either_a_query_or_views(person: Person, arguments: tuple[str, ...]) -> None:
    assert person.types("sql", *arguments).exit_code == 2


def test_views_makes_the_same_tables_elsewhere(person: Person) -> None:
    import duckdb

    person.write(4)
    person.runs()
    statements = person.types("sql", "--views").stdout
    with duckdb.connect() as elsewhere:
        elsewhere.execute(statements)
        assert elsewhere.execute("select count(*) from notes.results").fetchone() == (4,)


def drawn(person: Person, query: str, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with open_database(person.settings, query) as database:
        draw(database.execute(query), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_gets_a_table_that_fits_and_hears_what_is_left_out(person: Person) -> None:
    columns = ", ".join(f"'{'long text ' * 9}' as column_{n}" for n in range(9))
    shown = drawn(person, f"select range as n, {columns} from range(60)", 100)
    drawing, _, hint = shown.partition("Not drawn: ")
    assert max(map(len, drawing.splitlines())) <= 100
    assert "column_0" in drawing and "…" in drawing
    assert "column_8" not in drawing and "column_8" in hint
    assert "the rows after the first 50" in " ".join(hint.split())


def test_an_answer_without_rows_shows_its_columns(person: Person) -> None:
    assert "label" in drawn(person, "select 1 as label where false", 80)


def test_null_and_line_breaks_are_seen_on_a_terminal(person: Person) -> None:
    shown = drawn(person, "select null as a, E'x\\ny' as b", 80)
    assert "NULL" in shown and "x⏎y" in shown


def test_the_widest_columns_give_way_first() -> None:
    assert fitted([4, 60, 30], 100) == [4, 58, 30]
    assert fitted([4, 60, 60], 80) == [4, 34, 34]
    assert len(fitted([20] * 10, 60)) < 10


def test_many_rows_are_written_in_order(person: Person) -> None:
    query = "select range as n from range(5001)"
    written = io.StringIO()
    with open_database(person.settings, query) as database:
        write_csv(database.execute(query), written)
    assert written.getvalue() == "n\n" + "".join(f"{n}\n" for n in range(5001))


def test_a_full_disk_is_one_message() -> None:
    command = [sys.executable, "-m", "ondine_dagster.cli.main", "sql", "select 1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No space left on device.\n")
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_query_without_a_traceback(person: Person) -> None:
    words = [
        sys.executable,
        "-m",
        "ondine_dagster.cli.main",
        "sql",
        "select * from range(1000000000000)",
    ]
    with subprocess.Popen(
        words, cwd=person.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as query:
        assert query.stdout is not None
        assert query.stdout.readline() == "range\n"
        query.send_signal(signal.SIGINT)
        _, told = query.communicate(timeout=PATIENCE_SECONDS)
    assert (query.returncode, told.split()) == (130, ["Interrupted."])


def test_what_duckdb_makes_of_ctrl_c_is_no_error(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(settings: object, query: str) -> None:
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr("ondine_dagster.cli.sql.open_database", interrupted)
    result = person.types("sql", "select 1")
    assert (result.exit_code, result.stderr.split()) == (130, ["Interrupted."])
