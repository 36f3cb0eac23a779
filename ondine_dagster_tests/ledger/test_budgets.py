"""Where budgets stand, who warns, and what a person reads when one is used up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import pytest

from ondine_dagster.ledger import budgets
from ondine_dagster.ledger.budgets import (
    Standing,
    amount_of,
    claim_warning,
    described,
    limits_of,
    limits_on,
    sentence,
    standings,
    table,
    untouched,
    warning,
)
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import EVERYTHING, Limit, declare, in_force, scope_of
from ondine_dagster.ledger.records import Broke
from ondine_dagster.ledger.unknowns import resolve, resolve_older
from ondine_dagster.spec import Budget, Dataset
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    WORST_TOKENS,
    answered,
    ask_and_answer,
    go,
    request,
    unknown,
)
from ondine_dagster_tests.spec.declarations import changed

USD = 10**12
OWN = scope_of("reviews")
TOTAL = Limit(OWN, "total", "usd", 10 * WORST)


def stand(ledger: Ledger, *limits: Limit, run_scope: str | None = None) -> list[Standing]:
    with ledger.database.read() as connection:
        return standings(connection, limits, run_scope)


def put_in_force(ledger: Ledger, *limits: Limit) -> None:
    with ledger.database.write() as connection:
        declare(connection, OWN, limits)


def standing(settled: int, amount: int = 100, warned: int = 0, unknown: int = 0) -> Standing:
    return Standing(replace(TOTAL, amount=amount), "total", settled, 0, unknown, warned)


# what is declared


def test_a_declaration_becomes_limits_of_its_dataset() -> None:
    attributes = changed("limits", {"budget_usd": "0.5", "budgets": [{"tokens": 7, "per": "run"}]})
    assert limits_of(Dataset.model_validate(attributes)) == (
        Limit(OWN, "total", "usd", USD // 2),
        Limit(OWN, "run", "tokens", 7),
    )


def test_money_below_a_picodollar_is_not_allowed_rather_than_rounded_up() -> None:
    budget = Budget(usd=Decimal("0.0000000000019"), per="day")
    assert limits_on(EVERYTHING, [budget]) == (Limit(EVERYTHING, "day", "usd", 1),)


# where it stands


def test_used_in_flight_unknown_and_left_add_up_to_the_limit(ledger: Ledger) -> None:
    ask_and_answer(ledger, "answered")
    ledger.settle(unknown(go(ledger, request("lost"))))
    go(ledger, request("open"))
    (found,) = stand(ledger, TOTAL)
    assert (found.settled, found.open, found.unknown) == (COST, WORST, WORST)
    assert found.left == TOTAL.amount - COST - 2 * WORST
    assert found.gone == COST + WORST  # an open request may give its money back


def test_each_limit_counts_in_its_own_unit_window_and_scope(ledger: Ledger) -> None:
    ask_and_answer(ledger, "a")
    ledger.settle(answered(go(ledger, request("b", run_scope="run-2"))))
    ledger.settle(unknown(go(ledger, request("c", dataset="others"))))
    limits = (
        Limit(OWN, "run", "requests", 10),
        Limit(OWN, "day", "tokens", 100),
        Limit(OWN, "month", "requests", 100),
        Limit(EVERYTHING, "total", "tokens", 1000),
    )
    found = stand(ledger, *limits, run_scope="run-2")
    assert [(one.settled, one.unknown) for one in found] == [
        (1, 0),
        (10, 0),
        (2, 0),
        (10, WORST_TOKENS),
    ]


def test_without_a_run_a_budget_per_run_is_that_of_the_next_one(ledger: Ledger) -> None:
    ask_and_answer(ledger, "a")
    (found,) = stand(ledger, Limit(OWN, "run", "requests", 3))
    assert (found.settled, found.left) == (0, 3)


def test_money_of_earlier_days_and_months_is_not_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_and_answer(ledger, "a")
    monkeypatch.setattr(budgets, "now_ms", lambda: 4_102_444_800_000)  # the year 2100
    limits = [Limit(OWN, window, "usd", WORST) for window in ("day", "month", "total")]
    assert [one.settled for one in stand(ledger, *limits)] == [0, 0, COST]


def test_where_no_ledger_is_everything_is_left() -> None:
    (found,) = untouched([TOTAL])
    assert (found.left, found.percent) == (TOTAL.amount, 0)


def test_a_limit_that_was_lowered_below_what_is_used_leaves_nothing() -> None:
    assert standing(settled=150).left == 0


@pytest.mark.parametrize("outcome", ["free", "charged"])
def test_a_person_frees_what_was_not_billed(ledger: Ledger, outcome: str) -> None:
    lost = go(ledger, request("lost"))
    ledger.settle(unknown(lost))
    resolve(ledger.database, [lost.attempt.hex()], outcome)  # type: ignore[arg-type]
    (found,) = stand(ledger, TOTAL)
    assert (found.settled, found.unknown) == ((0, 0) if outcome == "free" else (WORST, 0))
    assert found.left == TOTAL.amount - found.settled


def test_what_is_old_is_resolved_at_once_and_of_the_dataset_that_was_named(
    ledger: Ledger,
) -> None:
    for name, dataset in (("a", "reviews"), ("b", "reviews"), ("c", "others")):
        ledger.settle(unknown(go(ledger, request(name, dataset=dataset))))
    everything = replace(TOTAL, scope=EVERYTHING)
    assert resolve_older(ledger.database, 0, "free") == []
    later = 4_102_444_800_000
    done = resolve_older(ledger.database, later, "free", "reviews")
    assert [one.dataset for one in done] == ["reviews", "reviews"]
    assert [one.unknown for one in stand(ledger, TOTAL, everything)] == [0, WORST]
    assert len(resolve_older(ledger.database, later, "charged")) == 1
    assert [one.settled for one in stand(ledger, TOTAL, everything)] == [0, WORST]


# warnings


@pytest.mark.parametrize(
    ("gone", "warned", "due"),
    [(74, 0, None), (75, 0, 75), (89, 75, None), (90, 75, 90), (90, 0, 90), (100, 90, None)],
)
def test_the_highest_threshold_that_is_reached_is_due_once(
    gone: int, warned: int, due: int | None
) -> None:
    assert standing(gone, warned=warned).due((75, 90)) == due
    assert standing(0, warned=warned, unknown=gone).due((75, 90)) == due
    assert standing(gone, warned=warned).due(()) is None


def test_a_budget_of_nothing_is_used_up_by_anything() -> None:
    assert standing(0, amount=0).due((75, 90)) is None
    assert standing(1, amount=0).due((75, 90)) == 90


def test_one_of_many_warns_of_each_threshold(ledger: Ledger) -> None:
    ask_and_answer(ledger, "a")

    def claims(percent: int) -> int:
        (found,) = stand(ledger, TOTAL)
        with ThreadPoolExecutor(8) as pool:
            won = pool.map(lambda _: claim_warning(ledger.database, found, percent), range(8))
            return sum(won)

    assert [claims(75), claims(90), claims(75)] == [1, 1, 0]
    assert stand(ledger, TOTAL)[0].warned == 90


def test_each_window_is_warned_of_by_itself(ledger: Ledger) -> None:
    per_run = Limit(OWN, "run", "usd", WORST)
    for run in ("run-1", "run-2"):
        ledger.settle(answered(go(ledger, request(run, run_scope=run))))
        (found,) = stand(ledger, per_run, run_scope=run)
        assert claim_warning(ledger.database, found, 75)
    assert stand(ledger, TOTAL)[0].warned == 0


def test_a_changed_limit_is_warned_of_anew_and_an_unchanged_one_is_not(ledger: Ledger) -> None:
    ask_and_answer(ledger, "a")
    put_in_force(ledger, TOTAL)
    claim_warning(ledger.database, stand(ledger, TOTAL)[0], 90)
    put_in_force(ledger, TOTAL)
    assert stand(ledger, TOTAL)[0].warned == 90
    put_in_force(ledger, replace(TOTAL, amount=99 * WORST))
    assert stand(ledger, TOTAL)[0].warned == 0


def test_limits_that_are_declared_no_more_are_gone_and_others_stay(ledger: Ledger) -> None:
    shared = Limit(EVERYTHING, "day", "usd", 5)
    with ledger.database.write() as connection:
        declare(connection, EVERYTHING, [shared])
    put_in_force(ledger, TOTAL)
    put_in_force(ledger)
    with ledger.database.read() as connection:
        assert in_force(connection, [OWN, EVERYTHING]) == [shared]


# in words


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (USD, "$1.00"),
        (1234 * USD + USD // 2, "$1,234.50"),
        (271_000_000, "$0.000271"),
        (7_000_000, "$0.000007"),
        (1, "$0.000000000001"),
    ],
)
def test_money_is_written_with_the_digits_it_needs(amount: int, text: str) -> None:
    assert amount_of("usd", amount) == text


def test_limits_are_described_as_people_say_them() -> None:
    assert described(Limit(EVERYTHING, "day", "usd", 5 * USD)) == "$5.00 per day over all datasets"
    assert described(Limit(OWN, "total", "usd", USD)) == "$1.00 in total"
    assert described(Limit(OWN, "run", "requests", 1)) == "1 request per run"
    assert described(Limit(OWN, "month", "tokens", 10**6)) == "1,000,000 tokens per month"


def test_a_table_has_a_line_per_limit() -> None:
    found = Standing(Limit(OWN, "day", "requests", 9), "day:2026-01-01", 1, 2, 3, 0)
    assert table([found]).splitlines() == [
        "| budget | used | in flight | unknown | left |",
        "| --- | --- | --- | --- | --- |",
        "| 9 requests per day | 1 request | 2 requests | 3 requests | 3 requests |",
    ]


def test_a_warning_says_how_much_of_what_is_used() -> None:
    limit = Limit(scope_of("notes"), "day", "usd", USD)
    assert warning(Standing(limit, "", USD * 3 // 4, 5, 0, 0)) == (
        "notes: $0.75 of $1.00 per day are used (75 %). At 100 % nothing more is sent, and the "
        "rest of the rows waits for a higher limits.budgets."
    )
    shared = replace(limit, scope=EVERYTHING)
    text = warning(Standing(shared, "", USD // 2, 0, USD // 4, 0))
    assert text.startswith(
        "all datasets: $0.75 of $1.00 per day are used (75 %), $0.25 of it by requests of unknown"
    )
    assert text.endswith("a higher ONDINE_BUDGET_USD_PER_DAY.")


NOTES = scope_of("notes")


def test_a_used_up_budget_is_named_with_what_is_left_needed_and_unknown() -> None:
    limit = Limit(NOTES, "total", "usd", USD)
    broke = Broke(limit, "total", settled=USD // 2, unknown=USD // 4, needed=USD // 3)
    assert sentence(broke, "ondine-dagster run notes") == (
        "limits.budget_usd of dataset notes ($1.00 in total) is used up: it has $0.25 left, and "
        "the next request needs up to $0.333333. $0.25 of it all is held by requests of unknown "
        "outcome: `ondine-dagster ledger unknown` lists them, and `ledger resolve` frees what was "
        "not billed. Raise it and go on with `ondine-dagster run notes`: only the rest is paid."
    )


@pytest.mark.parametrize(
    ("limit", "start"),
    [
        (Limit(EVERYTHING, "day", "usd", USD), "ONDINE_BUDGET_USD_PER_DAY ($1.00 per day over all"),
        (Limit(EVERYTHING, "month", "usd", USD), "ONDINE_BUDGETS ($1.00 per month over all"),
        (Limit(NOTES, "day", "usd", USD), "limits.budgets of dataset notes ($1.00 per day)"),
        (Limit(NOTES, "run", "tokens", 9), "limits.budgets of dataset notes (9 tokens per run)"),
    ],
)
def test_a_budget_is_called_by_the_name_it_is_declared_under(limit: Limit, start: str) -> None:
    assert sentence(Broke(limit, "", 1, 0, limit.amount)).startswith(start)


@pytest.mark.parametrize(
    ("window", "remedy"),
    [
        ("run", "The next run has a new one."),
        ("day", "It is renewed at midnight UTC."),
        ("month", "It is renewed on the first of the month, UTC."),
    ],
)
def test_a_budget_that_is_renewed_says_when(window: str, remedy: str) -> None:
    limit = Limit(NOTES, window, "requests", 3)  # type: ignore[arg-type]
    assert f"{remedy} Raise it and run again" in sentence(Broke(limit, "", 3, 0, 1))


def test_a_budget_that_pays_for_no_request_is_too_small_and_not_used_up() -> None:
    text = sentence(Broke(Limit(NOTES, "total", "usd", 5), "total", 0, 0, 7))
    assert "is too small: it has $0.000000000005 left" in text
    assert "unknown" not in text
