"""`ondine-dagster retry`: what it says before it asks, what it asks, and its exit code."""

from __future__ import annotations

import pytest

from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.workbench import numbered

pytestmark = [pytest.mark.slow, pytest.mark.behaviour("B-8")]

ONCE = "[[token=t{n}]][[fault=null_content times=1]] row {n}"
REFUSED = "[[token=t{n}]][[fault=refusal times=1]] row {n}"


def write(person: Person, **sections: object) -> None:
    """Write 20 rows in two partitions; the first has two bad answers and a refusal."""
    bad = numbered(2, ONCE, first=7) + numbered(1, REFUSED, first=9)
    person.write(numbered(7) + bad + numbered(10, first=10), **sections)


def test_it_says_what_and_how_much_asks_and_ends_green(person: Person) -> None:
    write(person, limits={"max_rejected": 0.1})
    ran = person.runs()
    assert (ran.exit_code, person.paid) == (1, 20)
    assert (
        "--failed" not in ran.output and "ondine-dagster run" not in ran.output
    )  # it would change nothing
    retries = [line for line in ran.output.splitlines() if "ondine-dagster retry" in line]
    assert retries and all(line.endswith("notes.yaml") for line in retries)
    plan = person.types("plan", "notes.yaml").stdout.splitlines()[-1]
    assert plan.startswith("Nothing to ask") and plan.endswith("ondine-dagster retry notes.yaml")
    shown = person.types("status", "notes.yaml")
    assert "rows-00000: 3 of 10 rows are rejected (30 %)" in shown.stdout
    assert "ondine-dagster retry" in shown.stdout.partition("Next:")[2]

    result = person.types("retry", "notes.yaml")
    assert "to ask again: 2 rejected rows, 2 content_null; 2 requests" in result.stderr
    assert "at most" in result.stderr
    assert "left out: 1 refused. To ask for them all the same: " in result.stderr
    assert "ondine-dagster retry notes.yaml --class refused\n" in result.stderr
    assert result.exit_code == 0, result.output
    assert person.paid == 22
    assert "rejected   1  1 refused" in result.stdout
    assert "ondine-dagster export" in result.stdout.partition("Next:")[2]

    again = person.types("retry", "notes.yaml")
    assert (again.exit_code, person.paid) == (0, 22)
    assert "no rejected row to ask again" in again.stderr

    assert person.types("retry", "notes.yaml", "--class", "refused").exit_code == 0
    assert person.paid == 23
    assert person.asks("select count(*) from notes.results") == "count_star()\n20\n"


def test_mistakes_are_told_without_a_traceback_and_cost_nothing(person: Person) -> None:
    write(person)
    person.runs()
    wrong = person.types("retry", "notes.yaml", "--class", "refusd")
    assert wrong.exit_code == 1
    assert "There is no error class or code `refusd`. Did you mean `refused`?" in wrong.stderr
    wrong = person.types("retry", "notes.yaml", "--partition", "rows-00007")
    assert "has no partition rows-00007" in wrong.stderr
    assert person.paid == 20


def test_partitions_that_have_to_run_first_are_named(person: Person) -> None:
    write(person)
    person.runs("--partition", "rows-00001")
    result = person.types("retry", "notes.yaml")
    assert "not looked at: 1 partition to run first" in result.stderr
    named = person.types("retry", "notes.yaml", "--partition", "rows-00000")
    assert named.exit_code == 1
    assert "Partition rows-00000 is missing" in named.stderr


def test_a_budget_that_ends_it_is_an_exit_code_and_a_reason(person: Person) -> None:
    write(person, limits={"max_rejected": 1, "budgets": [{"requests": 21, "per": "total"}]})
    person.runs()
    result = person.types("retry", "notes.yaml")
    assert (result.exit_code, person.paid) == (1, 21)
    assert "1 rejected row not asked again, and left as before" in result.stderr
    assert "ondine-dagster retry notes" in result.stderr
