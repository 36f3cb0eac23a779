"""An answer that was cut off: asked once more under the raised ceiling, and never as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ondine_dagster.engine.rows import Outcome, Question
from ondine_dagster.ledger.limits import Limit
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import SCOPE, Harness, question, questions

# four bytes are a token: 5 tokens take 20 of these, 20 tokens all
LONG = "a long answer of sixty bytes, or a little more than that: 01"
CUT = LONG[:20]
MakeRaising = Callable[..., Harness]


def long_one(marker: str = "") -> Question:
    return question(f"[[token={LONG}]] {marker}")


@pytest.fixture
def make(make_harness: MakeHarness, simulator: Simulator) -> MakeRaising:
    """Make harnesses on one ledger: ceilings of 5 tokens and, once raised, of 20."""

    def make(max_tokens: int = 5, raised_max_tokens: int | None = 20, **llm: Any) -> Harness:
        llm |= {"max_tokens": max_tokens, "raised_max_tokens": raised_max_tokens}
        return make_harness(simulator.base_url, **llm)

    return make


def ceilings(harness: Harness) -> list[int]:
    """Return the ceilings of all requests, in their order."""
    return [one.ceiling for one in harness.attempts()]


def worst_case(harness: Harness, ceiling: int) -> int:
    provider = harness.provider
    return provider.worst_case(provider.prompt_tokens_bound(long_one().messages), ceiling)


@pytest.mark.behaviour("P-21")
def test_a_cut_answer_is_asked_once_more_under_the_raised_ceiling(
    make: MakeRaising, simulator: Simulator
) -> None:
    harness = make()
    rows = [*questions(10), long_one()]
    run = harness.run(rows)
    assert set(run.outcomes) == {Outcome.ANSWERED}
    assert run.texts[-1] == LONG
    assert Counter(ceilings(harness)) == {5: 11, 20: 1}
    last = run.rows[-1]
    assert last.attempts == 2
    assert last.cost == sum(one.cost for one in harness.attempts()[-2:])
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
    assert harness.run(rows).texts == run.texts
    assert simulator.bill.totals.requests == 12
    assert harness.problems() == []


def test_without_a_raised_ceiling_the_cut_text_is_kept_and_not_paid_again(
    make: MakeRaising, simulator: Simulator
) -> None:
    harness = make(raised_max_tokens=None)
    for _ in range(2):
        (row,) = harness.run([long_one()]).rows
        assert (row.outcome, row.code, row.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, CUT)
    assert simulator.bill.totals.requests == 1


def test_an_answer_that_is_cut_again_ends_with_the_longer_text(
    make: MakeRaising, simulator: Simulator
) -> None:
    harness = make(raised_max_tokens=10)
    for _ in range(2):
        (row,) = harness.run([long_one()]).rows
        assert (row.outcome, row.code, row.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, LONG[:40])
    assert ceilings(harness) == [5, 10]
    assert simulator.bill.totals.requests == 2


def test_a_higher_ceiling_in_a_later_run_asks_only_what_was_cut_and_at_the_new_ceiling_only(
    make: MakeRaising, simulator: Simulator
) -> None:
    rows = [*questions(5), long_one()]
    for raised in (None, 10, 12, 10, None, 20, 30):
        harness = make(raised_max_tokens=raised)
        run = harness.run(rows)
    assert run.texts[-1] == LONG
    assert ceilings(harness) == [5, 5, 5, 5, 5, 5, 10, 12, 20]
    assert simulator.bill.totals.requests == 9
    assert harness.problems() == []


@pytest.mark.behaviour("P-21")
@pytest.mark.parametrize(
    ("fault", "max_attempts", "sent"),
    [
        ("500 times=2", 1, 1),  # never answered, so nothing is cut
        ("500 times=2", 3, 4),  # the last one is cut
        ("500 after=1", 1, 2),
        ("429 after=1 retry_after=0", 3, 4),
        ("reset_after after=1", 2, 3),
    ],
)
def test_a_raised_ceiling_is_worth_one_request_more_than_declared(
    make: MakeRaising,
    simulator: Simulator,
    short_waits: None,
    fault: str,
    max_attempts: int,
    sent: int,
) -> None:
    harness = make()
    harness.max_unknown = 9
    run = harness.run([long_one(f"[[fault={fault}]]")], max_attempts=max_attempts)
    assert simulator.bill.totals.requests == run.rows[0].attempts == sent


def test_what_was_paid_is_kept_where_the_longer_answer_does_not_come(
    make: MakeRaising, simulator: Simulator, short_waits: None
) -> None:
    harness = make()
    (row,) = harness.run([long_one("[[fault=500 after=1]]")], max_attempts=3).rows
    assert simulator.bill.totals.requests == 4
    assert (row.outcome, row.code, row.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, CUT)
    assert row.cost == simulator.bill.totals.picodollars


def test_what_was_paid_is_kept_where_the_raised_ceiling_is_refused(
    make: MakeRaising, simulator: Simulator
) -> None:
    """Prompt and ceiling together may be longer than the context of the model."""
    rows = [long_one("[[fault=context_length after=1]]")]
    for raised in (20, 20, 30, None):
        harness = make(raised_max_tokens=raised)
        (row,) = harness.run(rows).rows
        assert (row.outcome, row.code, row.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, CUT)
    assert simulator.bill.totals.charged == 1
    assert harness.problems() == []


def test_where_the_budget_has_no_room_for_it_the_cut_text_stays_and_the_run_goes_on(
    make: MakeRaising, simulator: Simulator
) -> None:
    # a longer answer may cost twenty times as much as all others together
    prices = {"input_per_million_usd": "0", "output_per_million_usd": "1"}
    harness = make(raised_max_tokens=10_000, prices=prices)
    harness.limits = (Limit(SCOPE, "total", "usd", worst_case(harness, 500)),)
    rows = [long_one(), *questions(30)]
    run = harness.run(rows, concurrency=2)
    assert run.engine.stopped is None
    first = run.rows[0]
    assert (first.outcome, first.code, first.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, CUT)
    assert "limits.budget_usd of dataset test" in (first.message or "")
    assert set(run.outcomes[1:]) == {Outcome.ANSWERED}
    assert ceilings(harness) == [5] * 31
    harness.limits = (Limit(SCOPE, "total", "usd", worst_case(harness, 20_000)),)
    assert harness.run(rows).texts[0] == LONG
    assert ceilings(harness) == [5] * 31 + [10_000]
    assert simulator.bill.totals.requests == 32
    assert harness.problems() == []


def test_a_longer_answer_waits_for_money_like_any_other(
    make: MakeRaising, simulator: Simulator
) -> None:
    harness = make()
    # room for the raised one, but not beside the others
    harness.limits = (Limit(SCOPE, "total", "usd", worst_case(harness, 20) * 3 // 2),)
    run = harness.run([long_one(), *questions(5)], concurrency=8)
    assert run.texts[0] == LONG
    assert ceilings(harness).count(20) == 1
    assert simulator.bill.totals.picodollars <= harness.limits[0].amount


def test_of_many_cut_answers_each_is_asked_once_more_whatever_else_fails(
    make: MakeRaising, simulator: Simulator, short_waits: None
) -> None:
    simulator.fail(FaultPlan(rates={"500": 0.1, "503": 0.1}))
    harness = make()
    rows = [question(f"[[token={LONG[:-2]}{n:02}]]") for n in range(60)]
    run = harness.run(rows, concurrency=16, max_attempts=20)
    assert run.texts == [f"{LONG[:-2]}{n:02}" for n in range(60)]
    settled = Counter(one.ceiling for one in harness.attempts() if one.state == "settled")
    assert settled == {5: 60, 20: 60}
    assert simulator.bill.totals.charged == 120
