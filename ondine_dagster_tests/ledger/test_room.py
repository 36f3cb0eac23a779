"""T1 under limits: nothing goes that could pass one, and nothing is refused that still fits."""

from __future__ import annotations

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import EVERYTHING, Limit, Unit, WindowKind, declare, scope_of
from ondine_dagster.ledger.records import Broke, Decision, Reservation
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    WORST_TOKENS,
    answered,
    counter,
    go,
    released,
    request,
    unknown,
)

SCOPE = scope_of("reviews")


def limit(amount: int, window: WindowKind = "total", unit: Unit = "usd") -> Limit:
    return Limit(SCOPE, window, unit, amount)


def reserve(ledger: Ledger, *items: Reservation) -> list[Decision]:
    """Reserve in one group."""
    decisions = wait_for(ledger.submit, items)
    return [one for one in decisions if one is not None]


def verdict(decision: Decision) -> str:
    if decision.broke:
        return "broke"
    return "wait" if decision.wait else "go" if decision.go else "other"


def test_of_one_group_only_those_go_that_fit_together(ledger: Ledger) -> None:
    limits = (limit(3 * WORST),)
    items = [request(name, limits=limits) for name in range(5)]
    found = [verdict(one) for one in reserve(ledger, *items)]
    assert found == ["go", "go", "go", "wait", "wait"]
    assert counter(ledger.database, "usd", "total") == (0, 3 * WORST)


def test_what_waits_goes_when_the_open_ones_turn_out_cheap(ledger: Ledger) -> None:
    limits = (limit(WORST + COST),)
    first = go(ledger, request("a", limits=limits))
    waiting = request("b", limits=limits)
    assert verdict(ledger.reserve(waiting)) == "wait"
    ledger.settle(answered(first))
    assert verdict(ledger.reserve(waiting)) == "go"


def test_a_settlement_and_a_reservation_of_one_group_see_each_other(ledger: Ledger) -> None:
    limits = (limit(WORST + COST),)
    first = go(ledger, request("a", limits=limits))
    _, decision = wait_for(ledger.submit, [answered(first), request("b", limits=limits)])
    assert decision is not None
    assert verdict(decision) == "go"


def test_it_is_final_only_when_nothing_that_is_open_could_change_it(ledger: Ledger) -> None:
    limits = (limit(2 * WORST),)
    lost = go(ledger, request("lost", limits=limits))
    ledger.settle(unknown(lost))
    open_one = go(ledger, request("open", limits=limits))
    third = request("third", limits=limits)
    assert verdict(ledger.reserve(third)) == "wait"  # `open` may cost nothing
    ledger.settle(answered(open_one, cost=1))
    decision = ledger.reserve(third)
    assert decision.broke == Broke(limits[0], "total", settled=1, unknown=WORST, needed=WORST)


def test_a_refused_request_leaves_nothing_behind(ledger: Ledger) -> None:
    decision = ledger.reserve(request("a", limits=(limit(WORST - 1),)))
    assert verdict(decision) == "broke"
    assert counter(ledger.database, "usd", "total") == (0, 0)
    assert verdict(ledger.reserve(request("a"))) == "go"  # its question is free


def test_a_released_request_gives_its_money_back(ledger: Ledger) -> None:
    limits = (limit(WORST),)
    ledger.settle(released(go(ledger, request("a", limits=limits))))
    assert verdict(ledger.reserve(request("b", limits=limits))) == "go"


@pytest.mark.parametrize(
    ("unit", "amount"), [("usd", WORST), ("requests", 1), ("tokens", WORST_TOKENS)]
)
def test_every_unit_has_its_limit(ledger: Ledger, unit: Unit, amount: int) -> None:
    limits = (limit(amount, unit=unit),)
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", limits=limits))) == "wait"


def test_a_budget_of_a_run_begins_anew_with_the_next_run(ledger: Ledger) -> None:
    limits = (limit(WORST, "run"),)
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", limits=limits, run_scope="run-2"))) == "go"
    assert verdict(ledger.reserve(request("c", limits=limits))) == "wait"


@pytest.mark.parametrize("window", ["day", "month", "total"])
def test_other_budgets_bind_all_runs(ledger: Ledger, window: WindowKind) -> None:
    limits = (limit(WORST, window),)
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", limits=limits, run_scope="run-2"))) == "wait"


def test_a_budget_over_everything_binds_all_datasets(ledger: Ledger) -> None:
    limits = (Limit(EVERYTHING, "day", "usd", WORST),)
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", limits=limits, dataset="others"))) == "wait"


def test_a_budget_of_one_dataset_does_not_bind_another(ledger: Ledger) -> None:
    limits = (limit(WORST),)
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", dataset="others", limits=limits))) == "go"


def test_all_limits_must_have_room_or_none_is_charged(ledger: Ledger) -> None:
    limits = (limit(10 * WORST), limit(1, "day", "requests"))
    assert verdict(ledger.reserve(request("a", limits=limits))) == "go"
    assert verdict(ledger.reserve(request("b", limits=limits))) == "wait"
    assert counter(ledger.database, "usd", "total") == (0, WORST)


def test_lowering_a_limit_in_the_ledger_binds_a_run_that_began_before(ledger: Ledger) -> None:
    limits = (limit(5 * WORST),)
    go(ledger, request("a", limits=limits))
    with ledger.database.write() as connection:
        declare(connection, SCOPE, [limit(WORST)])
    assert verdict(ledger.reserve(request("b", limits=limits))) == "wait"
    assert verdict(ledger.reserve(request("c"))) == "wait"  # also one that began without limits


def test_raising_a_limit_in_the_ledger_does_not_loosen_a_run_that_began_before(
    ledger: Ledger,
) -> None:
    limits = (limit(WORST),)
    go(ledger, request("a", limits=limits))
    with ledger.database.write() as connection:
        declare(connection, SCOPE, [limit(5 * WORST)])
    assert verdict(ledger.reserve(request("b", limits=limits))) == "wait"


def test_a_limit_that_is_declared_no_more_is_gone(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        declare(connection, SCOPE, [limit(0)])
    assert verdict(ledger.reserve(request("a"))) == "broke"
    with ledger.database.write() as connection:
        declare(connection, SCOPE, [])
    assert verdict(ledger.reserve(request("a"))) == "go"


def test_an_answer_that_is_there_needs_no_budget(ledger: Ledger) -> None:
    ledger.settle(answered(go(ledger, request("a"))))
    decision = ledger.reserve(request("a", limits=(limit(0),)))
    assert decision.hits and not decision.broke
