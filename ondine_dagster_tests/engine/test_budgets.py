"""Budgets of one engine: they bind, they strand nothing, and a higher one pays for the rest only.

Money is counted on the simulator's bill.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from ondine_dagster.engine.rows import Outcome, RowOutcome
from ondine_dagster.ledger import reserve
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import Limit, Unit, WindowKind, declare
from ondine_dagster.ledger.unknowns import resolve, unknown_attempts
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prices import Prices
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import SCOPE, Harness, Run, questions

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
OUTPUT_ONLY = {"input_per_million_usd": "0", "output_per_million_usd": "1"}


@pytest.fixture
def harness(make_harness: MakeHarness, simulator: Simulator) -> Harness:
    """A harness whose requests cost a twentieth of what they are allowed to."""
    return make_harness(simulator.base_url, max_tokens=8)


def limit(amount: int, window: WindowKind = "total", unit: Unit = "usd") -> Limit:
    return Limit(SCOPE, window, unit, amount)


def worst_case(harness: Harness, rows: int = 1) -> int:
    """Return what so many of the longest of our questions need at most."""
    provider = harness.provider
    (longest,) = questions(1, "[[token=999]] row 999")
    bound = provider.prompt_tokens_bound(longest.messages)
    return rows * provider.worst_case(bound, provider.ceiling)


def waiting(run: Run) -> list[RowOutcome]:
    """Return the rows that were not asked for want of a budget, which all say so."""
    rows = [row for row in run.rows if row.outcome is not Outcome.ANSWERED]
    assert {(row.outcome, row.code) for row in rows} <= {
        (Outcome.NOT_ATTEMPTED, ErrorCode.BUDGET_USED_UP)
    }
    return rows


def test_a_budget_of_300_worst_cases_pays_for_1600_rows_that_cost_a_tenth(
    make_harness: MakeHarness, simulator_factory: Callable[..., Simulator]
) -> None:
    """Whoever refuses what does not fit at the moment strands half of the budget."""
    # answers have four tokens, and forty at most
    simulator = simulator_factory(
        latency_ms=30,
        jitter_ms=30,
        prices=Prices.per_million_usd(input=Decimal(0), output=Decimal(1)),
    )
    harness = make_harness(simulator.base_url, prices=OUTPUT_ONLY, max_tokens=40)
    harness.limits = (limit(worst_case(harness, 300)),)
    simulator.hold()
    with ThreadPoolExecutor(1) as pool:
        rows = questions(1600, "[[token=answer {n:06}]]")
        running = pool.submit(harness.run, rows, concurrency=256)
        full = simulator.bill.wait_for(lambda totals: totals.in_flight == 256, 30)
        simulator.release()
        run = running.result()
    assert full
    assert waiting(run) == []
    bill = simulator.bill.totals
    assert (bill.requests, bill.answered) == (1600, 1600)
    assert bill.picodollars == worst_case(harness, 160)
    assert harness.problems() == []


# all of it and no more


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_budget_is_used_up_to_less_than_one_more_request(
    harness: Harness, simulator: Simulator, concurrency: int
) -> None:
    budget = worst_case(harness, 3)
    harness.limits = (limit(budget),)
    run = harness.run(questions(200), concurrency=concurrency)
    bill = simulator.bill.totals
    assert budget - worst_case(harness) < bill.picodollars <= budget
    assert len(waiting(run)) == 200 - bill.answered > 0
    assert harness.problems() == []


def test_requests_are_capped(harness: Harness, simulator: Simulator) -> None:
    simulator.fail(FaultPlan(rates={"500": 0.2}))
    harness.limits = (limit(25, unit="requests"),)
    run = harness.run(questions(100))
    # an error that the provider does not charge for uses nothing up
    assert simulator.bill.totals.answered == simulator.bill.totals.charged == 25
    assert simulator.bill.totals.requests > 25
    assert len(waiting(run)) == 75
    assert "(25 requests in total) is used up" in (waiting(run)[0].message or "")


def test_tokens_are_capped(harness: Harness, simulator: Simulator) -> None:
    provider = harness.provider
    bound = provider.prompt_tokens_bound(questions(1, "[[token=999]] row 999")[0].messages)
    worst = bound + provider.ceiling
    harness.limits = (limit(3 * worst, unit="tokens"),)
    run = harness.run(questions(200))
    bill = simulator.bill.totals
    assert 2 * worst < bill.prompt_tokens + bill.completion_tokens <= 3 * worst
    assert len(waiting(run)) == 200 - bill.answered > 0
    assert f"({3 * worst:,} tokens in total) is used up" in (waiting(run)[0].message or "")


def test_the_tightest_of_several_budgets_binds_and_is_the_one_that_is_named(
    harness: Harness, simulator: Simulator
) -> None:
    harness.limits = (limit(10**12), limit(7, "day", "requests"), limit(9, "run", "requests"))
    run = harness.run(questions(20))
    assert simulator.bill.totals.charged == 7
    message = waiting(run)[0].message or ""
    assert message.startswith("limits.budgets of dataset test (7 requests per day) is used up")
    assert "It is renewed at midnight UTC." in message


@pytest.mark.behaviour("A-15")
def test_a_run_that_cannot_pay_for_its_first_row_ends_at_once(
    harness: Harness, simulator: Simulator
) -> None:
    harness.limits = (limit(worst_case(harness) // 2),)
    began = time.monotonic()
    run = harness.run(questions(200), concurrency=64)
    assert time.monotonic() - began < 1
    assert len(waiting(run)) == 200
    assert "is too small: it has $0.0" in (waiting(run)[0].message or "")
    assert simulator.bill.totals.requests == 0
    assert harness.states() == {}


# changed, renewed


def test_a_raised_budget_pays_for_the_rest_only(harness: Harness, simulator: Simulator) -> None:
    rows = questions(200)
    paid = []
    for worst_cases in (3, 5, 200):
        harness.limits = (limit(worst_case(harness, worst_cases)),)
        run = harness.run(rows)
        paid.append(simulator.bill.totals.charged)
        assert len(run.rows) - len(waiting(run)) == paid[-1]
        assert sum(row.cost for row in run.rows) < worst_case(harness, worst_cases)
    assert 0 < paid[0] < paid[1] < paid[2] == 200
    assert simulator.bill.totals.repeats == 0
    assert run.texts == [str(n) for n in range(200)]


def test_a_budget_that_is_lowered_from_outside_binds_a_run_that_goes_on(
    harness: Harness, simulator: Simulator
) -> None:
    harness.limits = (limit(10**12),)
    simulator.hold()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(harness.run, questions(500))
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 8)
        other = Ledger(harness.ledger.path)
        with other.database.write() as connection:
            declare(connection, SCOPE, [limit(12, unit="requests")])
        other.close()
        simulator.release()
        run = running.result()
    assert simulator.bill.totals.charged == 12
    assert len(waiting(run)) == 488
    assert "(12 requests in total) is used up" in (waiting(run)[0].message or "")


def test_a_budget_below_what_is_in_flight_lets_that_end_and_sends_nothing_more(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.hold()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(harness.run, questions(500))
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 8)
        with harness.ledger.database.write() as connection:
            declare(connection, SCOPE, [limit(0)])
        simulator.release()
        run = running.result()
    assert simulator.bill.totals.requests == simulator.bill.totals.answered == 8
    assert len(waiting(run)) == 492


@pytest.mark.parametrize(("window", "days"), [("day", 1), ("month", 31)])
def test_a_used_up_window_is_followed_by_a_new_one(
    harness: Harness,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    window: WindowKind,
    days: int,
) -> None:
    harness.limits = (limit(10, window, "requests"), limit(15, unit="requests"))
    charged = []
    for day in (0, 0, days):
        monkeypatch.setattr(reserve, "now_ms", lambda day=day: NOON_MS + day * DAY_MS)
        run = harness.run(questions(100))
        charged.append(simulator.bill.totals.charged)
    assert charged == [10, 10, 15], "the total is not renewed"
    assert "(15 requests in total)" in (waiting(run)[0].message or "")
    assert harness.problems() == []


# requests of unknown outcome


def test_money_that_unknown_requests_hold_is_free_again_once_they_are_resolved(
    harness: Harness, simulator: Simulator
) -> None:
    harness.max_unknown = 100
    harness.limits = (limit(worst_case(harness, 4)),)
    simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    short = harness.run(questions(20), max_attempts=1, concurrency=1)
    assert harness.states() == {"unknown": 4}
    told = short.rows[-1].message or ""
    assert "$0.00 left" not in told
    assert "of it all is held by requests of unknown outcome" in told
    assert "`ondine-dagster ledger unknown` lists them, and `ledger resolve` frees" in told
    simulator.fail(FaultPlan())
    simulator.reset()
    harness.run(questions(20))
    assert simulator.bill.totals.requests == 0
    with harness.ledger.database.read() as connection:
        lost = [one.id for one in unknown_attempts(connection)]
    resolve(harness.ledger.database, lost, "free")
    run = harness.run(questions(20))
    assert waiting(run) == []
    assert simulator.bill.totals.charged == 20
    assert harness.problems() == []
