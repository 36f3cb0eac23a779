"""Budgets as the commands show them, and requests of unknown outcome that hold a part of them."""

from __future__ import annotations

import pytest

from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person

pytestmark = pytest.mark.slow

PER_DAY, LISTED = "ONDINE_BUDGET_USD_PER_DAY", "ONDINE_BUDGETS"
TEN = {"budgets": [{"requests": 10, "per": "total"}, {"requests": 5, "per": "run"}]}
NO_MATTER = {"max_attempts": 1, "max_unknown": 0}


def cells(text: str, budget: str) -> str:
    """Return what stands behind a budget in a table, with single spaces."""
    (line,) = [line for line in text.splitlines() if line.startswith(budget)]
    return " ".join(line.removeprefix(budget).split())


def lose(person: Person, rows: int, **limits: object) -> None:
    """Run rows whose connections break after the requests were read."""
    person.write(rows, limits={**NO_MATTER, **limits})
    person.simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    person.runs()
    person.simulator.fail(FaultPlan())


# shown


def test_status_and_summary_show_budgets_with_what_is_used_and_left(person: Person) -> None:
    person.write(3, limits=TEN)
    ran = person.runs()
    assert cells(ran.stdout, "budget") == "used in flight unknown left"
    three = "3 requests 0 requests 0 requests"
    assert cells(ran.stdout, "10 requests in total") == f"{three} 7 requests"
    assert cells(ran.stdout, "5 requests per run") == f"{three} 2 requests"
    shown = person.types("status", str(person.declared_in)).stdout
    assert cells(shown, "10 requests in total").endswith("7 requests")
    assert cells(shown, "5 requests per run").endswith("5 requests")  # of the next run


def test_what_is_shown_is_what_is_declared_now(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(person, 1)
    person.declare(limits={"budget_usd": "0.5"})
    monkeypatch.setenv(PER_DAY, "2")
    shown = person.types("status", str(person.declared_in)).stdout
    used, in_flight, unknown, left = cells(shown, "$0.50 in total").split()
    assert (used, in_flight) == ("$0.00", "$0.00")
    assert float(unknown[1:]) > 0
    assert float(left[1:]) == pytest.approx(0.5 - float(unknown[1:]))
    assert cells(shown, "$2.00 per day over all datasets").split()[2] == unknown


def test_where_there_are_no_budgets_none_are_shown(person: Person) -> None:
    person.write(1)
    for result in (person.runs(), person.types("status", str(person.declared_in))):
        assert result.exit_code == 0
        assert "in flight" not in result.stdout


def test_doctor_names_the_budgets_and_what_is_left(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.write(2)
    called = str(person.declared_in)
    assert "ok    budgets      none: spending is not limited" in (
        person.types("doctor", called).stdout
    )
    person.declare(limits={"budgets": [{"requests": 9, "per": "total"}]})
    assert "9 requests in total (9 requests left)" in person.types("doctor", called).stdout
    person.runs()
    monkeypatch.setenv(LISTED, '[{"requests": 7, "per": "month"}]')
    shown = person.types("doctor", called).stdout
    assert "9 requests in total (7 requests left)" in shown
    assert "7 requests per month over all datasets (5 requests left)" in shown
    assert "7 requests per month over all datasets (5 requests left)" in (
        person.types("doctor").stdout
    )


def test_wrong_budgets_of_the_environment_stop_a_run_and_fail_the_doctor(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LISTED, "5 USD")
    person.write(1)
    ran = person.runs()
    assert (ran.exit_code, person.paid) == (1, 0)
    assert "ONDINE_BUDGETS is no valid JSON" in ran.stderr
    for arguments in ((), (str(person.declared_in),)):
        result = person.types("doctor", *arguments)
        assert result.exit_code == 1
        assert "FAIL  budgets      ONDINE_BUDGETS is no valid JSON" in result.stdout


def test_a_used_up_budget_is_said_and_a_higher_one_pays_only_for_the_rest(person: Person) -> None:
    person.write(8, limits={"budgets": [{"requests": 3, "per": "total"}]})
    short = person.runs()
    assert (short.exit_code, person.paid) == (1, 3)
    assert "limits.budgets of dataset notes (3 requests in total) is used up" in short.stderr
    assert "notes: 3 of 3 requests in total are used (100 %)" in short.stderr
    person.declare(limits={"budgets": [{"requests": 100, "per": "total"}]})
    assert person.runs().exit_code == 0
    assert person.paid == 8


# requests of unknown outcome


def test_a_name_that_nobody_knows_has_no_unknown_requests_but_a_typing_error(
    person: Person,
) -> None:
    lose(person, 1)
    result = person.types("ledger", "unknown", "nots")
    assert result.exit_code == 1
    assert "The ledger knows no dataset nots" in result.stderr
    assert "Did you mean notes?" in result.stderr


def test_a_dataset_without_unknown_requests_has_none(person: Person) -> None:
    person.write(1)
    person.runs()
    for called in ("notes", str(person.declared_in)):
        result = person.types("ledger", "unknown", called)
        assert result.stdout == "There are no requests of unknown outcome.\n"


@pytest.mark.parametrize(("outcome", "left"), [("free", "9 requests"), ("charged", "7 requests")])
def test_all_that_are_old_are_settled_at_once_and_free_makes_room_in_the_budgets(
    person: Person, outcome: str, left: str
) -> None:
    lose(person, 2, budgets=[{"requests": 9, "per": "total"}])
    resolve = ("ledger", "resolve", "--older-than")
    young = person.types(*resolve, "2h", f"--{outcome}")
    assert young.stdout == "No request of unknown outcome is older than 2h.\n"
    done = person.types(*resolve, "0m", "--dataset", "notes", f"--{outcome}")
    assert done.exit_code == 0, done.output
    assert f"2 requests settled as {outcome}: $0.00" in done.stdout
    assert ("is free again" in done.stdout) == (outcome == "free")
    shown = person.types("status", str(person.declared_in)).stdout
    assert cells(shown, "9 requests in total").endswith(left)
    assert person.types("ledger", "check").exit_code == 0


def test_only_the_old_ones_of_the_dataset_that_is_named_are_settled(person: Person) -> None:
    lose(person, 1)
    stranger = person.types("ledger", "resolve", "--older-than", "0m", "--dataset", "x", "--free")
    assert (stranger.exit_code, "knows no dataset x" in stranger.stderr) == (1, True)
    assert "1 in all" in person.types("ledger", "unknown").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--older-than", "1h"), "either --free or --charged"),
        (("--older-than", "1h", "--free", "--charged"), "either --free or --charged"),
        (("00", "--free", "--charged"), "either --free or --charged"),
        (("--free",), "either their ids, or --older-than"),
        (("00", "--older-than", "1h", "--free"), "either their ids, or --older-than"),
        (("00", "--dataset", "notes", "--free"), "--dataset goes with --older-than"),
    ],
)
def test_what_has_two_meanings_or_none_is_refused(
    person: Person, arguments: tuple[str, ...], message: str
) -> None:
    result = person.types("ledger", "resolve", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize("age", ["2", "h", "-1h", "2 weeks", "1.5h", ""])
def test_an_age_that_cannot_be_read_is_refused(person: Person, age: str) -> None:
    result = person.types("ledger", "resolve", "--older-than", age, "--free")
    assert result.exit_code == 1
    assert "like 90m, 2h or 3d" in result.stderr
