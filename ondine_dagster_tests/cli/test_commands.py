"""`status`, `export` and `ledger`, and how all commands fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person, miscount

REFUSED = "[[fault=refusal]] no"


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def with_an_unknown_request(person: Person) -> str:
    """Run one row whose connection breaks after the request was read; return the request's id."""
    person.write(1, limits={"max_attempts": 1, "max_unknown": 0})
    person.simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    assert "1 request of unknown outcome" in person.runs().stdout
    person.simulator.fail(FaultPlan())
    (line,) = person.types("ledger", "unknown").stdout.splitlines()
    return line.split()[0]


# status


def test_status_shows_partitions_rows_by_outcome_and_money(person: Person) -> None:
    rows = [{"id": f"r{n}", "text": REFUSED if n == 3 else f"row {n}"} for n in range(15)]
    rows[4]["text"] += " [[fault=other_model]]"
    person.write(rows)
    person.runs()
    result = person.types("status", str(person.declared_in))
    assert result.exit_code == 0
    shown = words(result.stdout)
    assert ["rows-00000", "done", "10", "9", "1", "0"] in shown
    assert ["rows-00001", "done", "5", "5", "0", "0"] in shown
    assert ["rejected", "1", "1", "refused"] in shown
    assert "notes.rejected_rows limit 5" in result.stdout.partition("Next:")[2]
    assert ["models", "2", "14", "demo-model,", "1", "demo-model-fallback"] in shown
    money = person.simulator.bill.totals.picodollars / 10**12
    assert ["paid", f"${money:.6f}", "15", "requests"] in shown


def test_status_tells_open_and_unknown_money_from_paid(person: Person) -> None:
    with_an_unknown_request(person)
    shown = words(person.types("status", str(person.declared_in)).stdout)
    assert ["paid", "$0", "0", "requests"] in shown
    (unknown,) = [line for line in shown if line[:1] == ["unknown,"]]
    assert unknown[-2:] == ["1", "request"] and unknown[-3] != "$0"
    assert ["rows-00000", "failed", "1", "0", "1", "0"] in shown


def test_status_before_the_first_run_says_what_to_do(person: Person) -> None:
    person.write(1)
    result = person.types("status", str(person.declared_in))
    assert result.exit_code == 1
    assert f"ondine-dagster run {person.declared_in}`" in result.stderr


# export


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_export_writes_the_results_and_says_what_is_not_in_them(
    person: Person, suffix: str
) -> None:
    person.write([{"id": "a", "text": "fine"}, {"id": "b", "text": REFUSED}])
    person.runs()
    to = person.folder / f"out{suffix}"
    result = person.types("export", str(person.declared_in), "--to", to.name)
    assert result.exit_code == 0
    assert f"1 row in {to}" in result.stderr
    assert "1 rejected row" in result.stderr
    assert to.stat().st_size > 0


def test_an_exported_header_reads_like_the_source(person: Person) -> None:
    person.write(2)
    person.runs()
    person.types("export", str(person.declared_in), "--to", "out.csv")
    assert (person.folder / "out.csv").read_text().splitlines()[0] == "id,text,response"
    person.types("export", str(person.declared_in), "--to", "out.csv", "--lineage")
    assert "_model_served" in (person.folder / "out.csv").read_text().splitlines()[0]


# ledger


def test_ledger_check_says_whether_it_adds_up(person: Person) -> None:
    assert "There is no ledger" in person.types("ledger", "check").stderr
    person.write(2)
    person.runs()
    good = person.types("ledger", "check")
    assert (good.exit_code, good.stderr) == (0, "")
    miscount(person)
    bad = person.types("ledger", "check")
    assert bad.exit_code == 1
    assert "counters say settled" in bad.stdout


def test_unknown_requests_are_listed_with_row_and_money(person: Person) -> None:
    attempt = with_an_unknown_request(person)
    for arguments in ((), ("notes",), (str(person.declared_in),)):
        listed = person.types("ledger", "unknown", *arguments)
        assert attempt in listed.stdout and "row r0" in listed.stdout
        assert f"ledger resolve {attempt} --free" in listed.stderr


@pytest.mark.parametrize("outcome", ["free", "charged"])
def test_a_person_settles_an_unknown_request(person: Person, outcome: str) -> None:
    attempt = with_an_unknown_request(person)
    assert person.runs("--all").exit_code == 1  # held: max_unknown is 0
    done = person.types("ledger", "resolve", attempt, f"--{outcome}")
    assert done.exit_code == 0, done.output
    assert f"1 request settled as {outcome}: $0.00" in done.stdout
    assert person.types("ledger", "check").exit_code == 0
    assert person.runs("--all").exit_code == 0
    assert person.asks("select count(*) as n from notes.results") == "n\n1\n"
    counted = person.asks("select count(*) as n from ledger.attempts where cost_usd > 0")
    assert counted == f"n\n{1 if outcome == 'free' else 2}\n"


def test_resolve_refuses_what_it_does_not_know(person: Person) -> None:
    attempt = with_an_unknown_request(person)
    assert person.types("ledger", "resolve", attempt).exit_code == 2
    strange = person.types("ledger", "resolve", "00", "--free")
    assert (strange.exit_code, "00" in strange.stderr) == (1, True)


# all of them


@pytest.mark.parametrize("command", ["run", "status", "export", "doctor"])
def test_a_name_outside_of_a_project_is_refused_with_what_to_do(
    person: Person, command: str
) -> None:
    options = ("--to", "x.csv") if command == "export" else ()
    result = person.types(command, "reviews", *options)
    assert result.exit_code == 1
    assert "give the path of a YAML file" in result.output


def test_a_name_is_found_in_the_project_above(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person.folder / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    place = person.folder / "shop" / "defs" / "notes"
    place.mkdir(parents=True)
    person.declare(place / "defs.yaml")
    monkeypatch.chdir(place)
    result = person.types("status", "notes")
    assert "has no snapshot yet" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from ondine_dagster.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "heavy = {'dagster', 'duckdb', 'pydantic', 'pyarrow', 'rich', 'sqlalchemy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_commands_in_messages_name_the_data_folder_where_the_folder_here_has_another(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONDINE_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (person.folder / "pyproject.toml").write_text("[tool.dg]\n")
    person.write(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = person.runs()
    assert f"ONDINE_DATA_DIR={person.folder / 'data'} " in result.stdout


@pytest.mark.parametrize(
    "command", [("doctor",), ("ledger", "check"), ("sql", "from ledger.spend")]
)
def test_a_damaged_ledger_is_one_readable_message(person: Person, command: tuple[str, ...]) -> None:
    person.settings.data_dir.mkdir()
    person.settings.ledger_path.write_bytes(b"no database at all, " * 100)
    result = person.types(*command)
    assert result.exit_code == 1
    assert str(person.settings.ledger_path) in result.output
    assert "Restore it from a backup" in result.output
