"""`ondine-dagster run`: what it takes up, what it pays, and what its exit code says."""

from __future__ import annotations

import re
import shutil

import dagster as dg
import pytest

from ondine_dagster.assets.raw_rows import write_raw_rows
from ondine_dagster.assets.responses import CALL_TAG
from ondine_dagster.simulator import FaultPlan
from ondine_dagster.storage.snapshot import take_snapshot
from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.workbench import MakeBench, numbered

LABELS = {"fields": {"label": {"type": "string", "enum": ["good", "bad"]}}}

SIXTEEN = {"budgets": [{"requests": 16, "per": "total"}]}


def finished_runs(person: Person) -> list[dg.DagsterRun]:
    with person.dagster() as instance:
        return list(reversed(instance.get_runs()))


@pytest.mark.behaviour("E-10")
def test_every_row_is_labelled_and_the_summary_says_what_it_cost(person: Person) -> None:
    person.write(25)
    result = person.runs()
    assert result.exit_code == 0, result.output
    assert person.paid == 25
    assert person.asks("select count(*) from notes.results") == "count_star()\n25\n"
    money = person.simulator.bill.totals.picodollars / 10**12
    assert f"${money:.6f}" in result.stdout
    assert str(person.settings.data_dir) in result.stderr


@pytest.mark.slow
@pytest.mark.behaviour("B-1")
def test_a_second_run_pays_nothing_and_says_so(person: Person) -> None:
    person.write(12)
    person.runs()
    again = person.runs()
    assert again.exit_code == 0
    assert "0 requests, $0: every answer was paid before." in again.stdout
    assert person.paid == 12


def test_nothing_but_our_own_lines_is_printed(person: Person) -> None:
    person.write(12)
    result = person.runs()
    noise = ("DEBUG", "STEP_START", "RUN_", "__ASSET_JOB", "Started capturing logs", "dagster -")
    assert [word for word in noise if word in result.output] == []
    assert "notes rows-00001: 2 rows, 2 results" in result.stderr


def test_runs_are_recorded_in_dagster_with_their_process_and_call(person: Person) -> None:
    person.write(5)
    person.runs()
    runs = finished_runs(person)
    assert [run.status for run in runs] == [
        dg.DagsterRunStatus.SUCCESS
    ] * 3  # snapshot, rows, report
    assert {run.tags["ondine/cli"] for run in runs} == {"run"}
    assert len({run.tags[CALL_TAG] for run in runs}) == 1
    with person.dagster() as instance:
        green = instance.get_materialized_partitions(dg.AssetKey(["notes", "results"]))
    assert green == {"rows-00000"}


@pytest.mark.slow
def test_named_partitions_run_alone_and_the_exit_code_says_that_rows_are_missing(
    person: Person,
) -> None:
    person.write(30)
    result = person.runs("--partition", "rows-00001")
    assert person.paid == 10
    assert result.exit_code == 1
    assert "2 partitions did not run" in result.stderr
    assert person.runs().exit_code == 0
    assert person.paid == 30


@pytest.mark.slow
def test_partitions_that_are_no_neighbours_take_several_runs_and_one_call(person: Person) -> None:
    person.write(30)
    result = person.runs("--partition", "rows-00002", "--partition", "rows-00000")
    assert re.search(r"requests +20 +20\n", result.stdout)  # in this run, which was two of Dagster
    ranges = [
        (run.tags[start], run.tags["dagster/asset_partition_range_end"])
        for run in finished_runs(person)
        if (start := "dagster/asset_partition_range_start") in run.tags
    ]
    assert ranges == [("rows-00000", "rows-00000"), ("rows-00002", "rows-00002")]


def test_an_unknown_partition_is_refused_with_the_nearest_name(person: Person) -> None:
    person.write(3)
    result = person.runs("--partition", "rows-0000")
    assert result.exit_code == 1
    assert "Did you mean rows-00000?" in result.stderr
    assert person.paid == 0


@pytest.mark.parametrize("options", [("--all", "--failed"), ("--missing", "--partition", "x")])
def test_options_that_contradict_are_a_usage_error(
    person: Person, options: tuple[str, ...]
) -> None:
    person.write(3)
    assert person.runs(*options).exit_code == 2


def test_a_local_setting_is_applied_without_asking(person: Person) -> None:
    person.write(12, output=LABELS)
    person.runs()
    renamed = {"fields": {"label": {**LABELS["fields"]["label"], "column": "verdict"}}}
    person.declare(output=renamed)
    result = person.runs()
    assert result.exit_code == 0, result.output
    assert person.paid == 12
    assert person.asks("select count(verdict) from notes.results") == "count(verdict)\n12\n"
    assert finished_runs(person)[-2].asset_selection == {
        dg.AssetKey(["notes", "results"]),
        dg.AssetKey(["notes", "rejected_rows"]),
    }


@pytest.mark.slow
def test_a_local_setting_is_applied_to_rows_in_another_order_too(
    person: Person, make_bench: MakeBench
) -> None:
    rows = numbered(12)
    person.write(rows)
    person.runs()
    person.write(rows[::-1])
    bench = make_bench()  # the same data folder, as the UI would use it
    taken = take_snapshot(bench.lake, bench.dataset, person.folder / "notes.csv").snapshot
    write_raw_rows(bench.lake, taken, "rows-00000")
    person.declare(output={"column": "verdict"})
    result = person.runs()
    assert result.exit_code == 0, result.output
    assert person.paid == 12
    shown = person.asks("select id, verdict from notes.results").splitlines()
    assert shown[1:] == [f"r{n},{answer_of(person, n)}" for n in reversed(range(12))]


def answer_of(person: Person, number: int) -> str:
    query = f"select text from notes.responses where _row_key = 'r{number}'"
    return person.asks(query).splitlines()[1]


@pytest.mark.slow
def test_a_new_question_is_left_alone_and_paid_only_with_all(person: Person) -> None:
    person.write(12)
    person.runs()
    person.declare(prompt={"template": "Again: {{ text }}"})
    left = person.runs()
    assert left.exit_code == 0
    assert "2 stale partitions left as it is (12 rows)" in left.stdout
    assert person.paid == 12
    assert person.runs("--all").exit_code == 0
    assert person.paid == 24


def test_a_failed_partition_is_reported_with_reason_and_remedy_and_taken_up_again(
    person: Person,
) -> None:
    person.write(12, limits={"max_attempts": 1})
    person.simulator.fail(FaultPlan(rates={"401": 1.0}))
    result = person.runs()
    assert result.exit_code == 1
    assert "not complete" in result.stderr
    assert f"run {person.declared_in}" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    person.simulator.fail(FaultPlan())
    assert person.runs("--failed").exit_code == 0
    assert person.paid == 12


@pytest.mark.slow
def test_a_run_of_all_that_fails_goes_on_with_all(person: Person) -> None:
    person.write(12)
    person.runs()
    person.declare(prompt={"template": "Again: {{ text }}"}, limits=SIXTEEN)
    result = person.runs("--all")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(f"run {person.declared_in} --all")
    person.declare(prompt={"template": "Again: {{ text }}"})
    assert person.runs("--all").exit_code == 0
    assert person.paid == 24


def test_a_source_that_is_missing_is_one_readable_message(person: Person) -> None:
    person.declare()
    result = person.runs()
    assert result.exit_code == 1
    assert "notes.csv" in result.stderr
    assert "Traceback" not in result.output


def test_a_second_declaration_of_the_same_name_is_refused_before_anything_is_read(
    person: Person,
) -> None:
    person.write(3)
    person.runs()
    other = person.folder / "other.yaml"
    person.declare(other, source={"path": "elsewhere.csv"})
    result = person.types("run", str(other))
    assert result.exit_code == 1
    assert f"{person.declared_in} and {other}" in result.stderr
    assert person.asks("select count(*) from notes.results").endswith("3\n")


def test_a_ledger_that_was_removed_is_refused_before_all_is_paid_again(person: Person) -> None:
    person.write(5)
    assert person.runs().exit_code == 0
    for file in person.settings.data_dir.glob("ledger.sqlite*"):
        file.unlink()
    result = person.runs("--all")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert re.search(r"knows nothing of dataset notes, but \S+notes holds answers", said)
    assert person.paid == 5
    shutil.rmtree(person.settings.lake_root / "notes")
    assert person.runs().exit_code == 0
    assert person.paid == 10


def test_a_file_with_two_datasets_asks_which_one_is_meant(person: Person) -> None:
    person.write(3)
    one = person.declared_in.read_text(encoding="utf-8")
    person.declared_in.write_text(f"{one}---\n{one.replace('name: notes', 'name: more')}")
    refused = person.runs()
    assert refused.exit_code == 1
    assert f"{person.declared_in}#notes" in refused.stderr
    assert person.types("run", f"{person.declared_in}#more").exit_code == 0
