"""Limits that a real server enforces: declared ones are kept, others are learnt from its replies.

The server's limits per minute are token buckets that refill without steps (`simulator/limits.py`);
`burst_seconds` of the rate fit into one. Everything is counted on its bill, nothing by the clock.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.rows import Outcome, Question, RowOutcome
from ondine_dagster.ledger.rates import Rates
from ondine_dagster.ledger.records import Decision, Reservation
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.simulator import ServerLimits, Simulator
from ondine_dagster_tests.engine.background import Background
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, question, questions
from ondine_dagster_tests.workbench import REJECTED, MakeBench, declaration, numbered

Started = Callable[..., Simulator]
WHEN = r"in \d+ h \d+ min \(\d{4}-\d\d-\d\d \d\d:\d\d UTC\)"


def tomorrow() -> float:
    """Return the time of a server for which it is eight in the morning of the next day (UTC)."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1, hours=8)).timestamp()


def shared(make_harness: MakeHarness, simulator: Simulator, processes: int) -> list[Harness]:
    """Return harnesses whose ledgers are open on one file, as of so many processes."""
    return [make_harness(simulator.base_url) for _ in range(processes)]


def run_together(
    harnesses: Sequence[Harness], rows: Sequence[Question], **limits: Any
) -> list[Background]:
    """Run a part of the rows in each, all at the same time, to the end."""
    count = len(harnesses)
    runs = [
        Background(harness.engine(**limits), rows[number::count])
        for number, harness in enumerate(harnesses)
    ]
    for run in runs:
        run.join()
        assert run.error is None
    return runs


# declared


@pytest.mark.behaviour("B-2")
@pytest.mark.parametrize("processes", [1, 2])
def test_declared_requests_per_minute_are_kept(
    make_harness: MakeHarness, simulator_factory: Started, processes: int
) -> None:
    """300 rows at 100 a second, and a bucket of 100: to send them as they come would meet it."""
    limits = ServerLimits(requests_per_minute=6000, burst_seconds=1)
    simulator = simulator_factory(latency_ms=20, limits=limits)
    harnesses = shared(make_harness, simulator, processes)
    runs = run_together(
        harnesses, questions(300), concurrency=64, rates=Rates(requests_per_minute=6000)
    )
    assert {row.outcome for run in runs for row in run.rows} == {Outcome.ANSWERED}
    bill = simulator.bill.totals
    assert (bill.answered, bill.repeats) == (300, 0)
    assert bill.limited <= 0.01 * 300
    assert harnesses[0].problems() == []


@pytest.mark.behaviour("B-2")
@pytest.mark.parametrize("processes", [1, 2])
def test_declared_tokens_per_minute_are_kept(
    make_harness: MakeHarness, simulator_factory: Started, processes: int
) -> None:
    """16,000 tokens at 3,000 a second, and a bucket of 6,000. What a row weighs is learnt first."""
    limits = ServerLimits(tokens_per_minute=180_000, burst_seconds=2)
    simulator = simulator_factory(latency_ms=20, limits=limits)
    harnesses = shared(make_harness, simulator, processes)
    rows = [question(f"[[token={n}]] " + "x" * (37 * n % 400)) for n in range(300)]
    runs = run_together(harnesses, rows, concurrency=64, rates=Rates(tokens_per_minute=180_000))
    assert {row.outcome for run in runs for row in run.rows} == {Outcome.ANSWERED}
    bill = simulator.bill.totals
    assert (bill.answered, bill.repeats) == (300, 0)
    assert bill.limited <= 0.01 * 300


@pytest.mark.behaviour("B-2")
@pytest.mark.parametrize(("fault", "given_back"), [("429", 0), ("503", 1)])
def test_a_429_keeps_its_tokens_and_other_refusals_give_them_back(
    harness: Harness,
    short_waits: None,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    given_back: int,
) -> None:
    """Who is told that the tokens of the minute are gone must not ask as much again at once."""
    corrections: list[int] = []
    monkeypatch.setattr(Pacer, "correct", lambda self, tokens: corrections.append(tokens))
    rates = Rates(tokens_per_minute=10**9)
    row = question(f"[[fault={fault} times=1]] " + "x" * 4000)
    assert harness.run([row], rates=rates).outcomes == [Outcome.ANSWERED]
    assert sum(tokens < -1000 for tokens in corrections) == given_back


@pytest.mark.behaviour("B-5")
def test_a_declared_day_ends_the_run_and_the_next_allowance_pays_the_rest(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(100)
    run = harness.run(rows, rates=Rates(requests_per_day=30))
    bill = simulator.bill.totals
    assert (bill.requests, bill.answered) == (30, 30)
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 30, Outcome.NOT_ATTEMPTED: 70}
    assert codes_of_the_rest(run.rows) == {ErrorCode.RATE_LIMITED_DAILY}
    assert run.engine.stopped is not None
    assert "30 of 30 requests" in run.engine.stopped.message
    assert "renews at 00:00 UTC" in run.engine.stopped.message
    again = harness.run(rows, rates=Rates(requests_per_day=30))
    assert again.outcomes == run.outcomes
    assert simulator.bill.totals == bill, "nothing more is sent on this day"
    more = harness.run(rows, rates=Rates(requests_per_day=200))
    assert more.texts == [str(n) for n in range(100)]
    assert (simulator.bill.totals.charged, simulator.bill.totals.repeats) == (100, 0)


@pytest.mark.behaviour("B-5")
def test_a_slow_ledger_costs_nothing_of_a_declared_day(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = LedgerClient.reserve

    async def slowly(self: LedgerClient, reservation: Reservation) -> Decision:
        await asyncio.sleep(0.2)  # by then others know that the day is used up
        return await reserve(self, reservation)

    monkeypatch.setattr(LedgerClient, "reserve", slowly)
    run = harness.run(questions(20), rates=Rates(requests_per_day=5), concurrency=16)
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 5, Outcome.NOT_ATTEMPTED: 15}
    assert simulator.bill.totals.requests == 5


# undeclared: learnt from replies


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_window_that_headers_call_used_up_is_waited_for(
    make_harness: MakeHarness, simulator_factory: Started, dialect: Any
) -> None:
    """A bucket of 20 requests that is full again after a second, and 60 rows."""
    limits = ServerLimits(requests_per_minute=1200, burst_seconds=1, rate_headers=dialect)
    simulator = simulator_factory(latency_ms=5, limits=limits)
    harness = make_harness(simulator.base_url)
    run = harness.run(questions(60), concurrency=4)
    assert run.texts == [str(n) for n in range(60)]
    bill = simulator.bill.totals
    # who was in flight when the last of a window was taken; without pauses some sixty are refused
    assert bill.limited <= 4 * 3


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize("dialect", [None, "groq", "openrouter"])
def test_a_day_that_the_provider_calls_used_up_ends_the_run(
    make_harness: MakeHarness, simulator_factory: Started, dialect: Any
) -> None:
    """By the headers of the last answer, or by the first refusal."""
    limits = ServerLimits(requests_per_day=30, rate_headers=dialect)
    simulator = simulator_factory(limits=limits, clock=tomorrow)
    harness = make_harness(simulator.base_url)
    run = harness.run(questions(100), concurrency=4)
    bill = simulator.bill.totals
    assert bill.answered == 30
    assert bill.limited <= 4
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 30, Outcome.NOT_ATTEMPTED: 70}
    assert codes_of_the_rest(run.rows) == {ErrorCode.RATE_LIMITED_DAILY}
    assert run.engine.stopped is not None
    assert re.search(WHEN, run.engine.stopped.message)
    assert harness.problems() == []


def test_a_capacity_that_no_header_tells_of_is_found(
    make_harness: MakeHarness, simulator_factory: Started
) -> None:
    """Ten at once; the others are refused, and told to come back after a second."""
    simulator = simulator_factory(latency_ms=10, limits=ServerLimits(capacity=10))
    harness = make_harness(simulator.base_url)
    run = harness.run(questions(400), concurrency=64)
    assert run.texts == [str(n) for n in range(400)]
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (400, 0)
    assert bill.limited < 64 + 0.2 * 400
    assert harness.problems() == []


def codes_of_the_rest(rows: Sequence[RowOutcome]) -> set[ErrorCode | None]:
    return {row.code for row in rows if row.outcome is Outcome.NOT_ATTEMPTED}


# as a user sees it


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize("known_by", ["declaration", "headers", "refusal"])
def test_a_used_up_day_makes_partitions_red_and_says_when_to_run_again(
    make_bench: MakeBench, simulator_factory: Started, known_by: str
) -> None:
    day = ServerLimits(requests_per_day=15, rate_headers="groq" if known_by == "headers" else None)
    if known_by == "declaration":
        simulator, limits, when = simulator_factory(), {"requests_per_day": 15}, "at 00:00 UTC"
    else:
        simulator, limits, when = simulator_factory(limits=day, clock=tomorrow), {}, WHEN
    llm = declaration(simulator)["llm"]
    bench = make_bench(numbered(30), llm=llm, limits={"concurrency": 2, **limits})
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    assert list(bench.states().values()) == ["done", "failed", "failed"]
    charged = simulator.bill.totals.charged
    assert 13 <= charged <= 15  # a slot that a busy machine comes too late for is not used again
    rest = [row for row in bench.rows(REJECTED) if row["_error_code"] == "rate_limited_daily"]
    assert len(rest) == 30 - charged
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    said = str(failure.step_failure_data)
    assert f"{30 - charged} rows waiting for another run" in said
    assert re.search(when, said)

    simulator.settings = replace(simulator.settings, limits=ServerLimits())
    bench.declare(declaration(simulator))
    assert bench.run_missing() == ["rows-00001", "rows-00002"]
    assert (simulator.bill.totals.charged, simulator.bill.totals.repeats) == (30, 0)
