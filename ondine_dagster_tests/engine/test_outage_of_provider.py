"""A provider that is out for a while in the middle of a run: who tries it, and what it costs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.engine.stop import INTERRUPTED
from ondine_dagster.ledger import provider_state
from ondine_dagster.ledger.limits import Limit, scope_of
from ondine_dagster.ledger.rates import Rates
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.background import Background
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import DATASET, Harness, question, questions
from ondine_dagster_tests.workbench import REJECTED, MakeBench, numbered

Started = Callable[..., Simulator]
ROWS, CONCURRENCY, COOLDOWN, PROBES = 600, 16, 0.3, 3
PROMPTLY = 5.0  # seconds; the waits that are ended would take half a minute and more


def cool_down_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let every cool-down last as long."""
    monkeypatch.setattr(provider_state, "FIRST_COOLDOWN_MS", round(1000 * seconds))
    monkeypatch.setattr(provider_state, "LONGEST_COOLDOWN_MS", round(1000 * seconds))


@pytest.fixture(autouse=True)
def _short_cooldowns(monkeypatch: pytest.MonkeyPatch) -> None:
    cool_down_for(monkeypatch, COOLDOWN)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


def is_out(harness: Harness) -> bool:
    return harness.shared_state().opened_at is not None


# it comes back


@pytest.mark.behaviour("A-17")
@pytest.mark.parametrize(
    ("fault", "engines"), [("503", 1), ("503", 2), ("reset", 1), ("reset_after", 1)]
)
def test_one_probe_goes_per_cooldown_and_the_run_ends_complete(
    make_harness: MakeHarness, simulator_factory: Started, fault: str, engines: int
) -> None:
    """After a reset nobody knows what was billed: `reset_after` bills all, `reset` nothing."""
    simulator = simulator_factory(latency_ms=10)
    harnesses = [make_harness(simulator.base_url) for _ in range(engines)]
    rows = questions(ROWS)
    runs = [
        Background(harness.engine(concurrency=CONCURRENCY), rows[number::engines])
        for number, harness in enumerate(harnesses)
    ]
    assert simulator.bill.wait_for(lambda totals: totals.answered >= ROWS / 4)
    simulator.outage(fault)
    until(lambda: is_out(harnesses[0]))
    time.sleep(COOLDOWN / 2)  # what was on its way then has arrived
    seen = simulator.bill.totals.during_outage
    assert simulator.bill.wait_for(lambda totals: totals.during_outage >= seen + PROBES, 30)
    simulator.recover()
    for run in runs:
        run.join()
        assert (run.error, run.engine.stopped) == (None, None)
    assert Counter(row.outcome for run in runs for row in run.rows) == {Outcome.ANSWERED: ROWS}

    arrivals = simulator.bill.snapshot().outage_times
    # a cool-down begins when the probe before has failed; the ledger counts in milliseconds
    gaps = [later - earlier for earlier, later in pairwise(arrivals[-PROBES:])]
    assert min(gaps) >= COOLDOWN - 0.002
    # the others: who was in flight, and who was sent before the failures were in the ledger
    others = len(arrivals) - (arrivals[-1] - arrivals[0]) / COOLDOWN
    assert others <= 2 * engines * CONCURRENCY

    harness = harnesses[0]
    unknown = harness.states().get("unknown", 0)
    assert unknown == (0 if fault == "503" else len(arrivals))
    bill = simulator.bill.totals
    assert bill.charged == ROWS + (unknown if fault == "reset_after" else 0)
    assert bill.repeats == bill.charged - ROWS
    assert harness.states()["settled"] == ROWS
    assert harness.problems() == []


@pytest.mark.behaviour("A-17")
def test_no_row_of_a_slow_run_is_held_because_it_tried_a_provider_that_was_out(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe may have been billed, and a row may have only so many outcomes like that."""
    cool_down_for(monkeypatch, 0.05)
    monkeypatch.setattr(provider_state, "IN_A_ROW", 1)
    monkeypatch.setattr("ondine_dagster.engine.traffic.IN_A_ROW", 1)
    run = Background(harness.engine(concurrency=2), questions(100))
    assert simulator.bill.wait_for(lambda totals: totals.answered >= 10)
    simulator.outage("reset")
    assert simulator.bill.wait_for(lambda totals: totals.during_outage >= 20, 30)
    simulator.recover()
    run.join()
    assert (run.error, run.engine.stopped) == (None, None)
    assert Counter(row.outcome for row in run.rows) == {Outcome.ANSWERED: 100}


# it stays away


@pytest.mark.behaviour("A-15")
@pytest.mark.behaviour("A-17")
def test_after_the_longest_outage_the_rest_waits_and_the_next_run_pays_only_for_it(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(ROWS)
    background = Background(harness.engine(concurrency=8, max_outage_seconds=1), rows)
    assert simulator.bill.wait_for(lambda totals: totals.answered >= 50)
    simulator.outage()
    background.join()
    assert background.error is None
    stopped = background.engine.stopped
    assert stopped is not None
    assert stopped.code is ErrorCode.BREAKER_OPEN
    assert "has been down since" in stopped.message
    ends = Counter(row.outcome for row in background.rows)
    assert ends.keys() == {Outcome.ANSWERED, Outcome.NOT_ATTEMPTED}
    codes = {row.code for row in background.rows if row.outcome is Outcome.NOT_ATTEMPTED}
    assert codes == {ErrorCode.BREAKER_OPEN}
    bill = simulator.bill.totals
    assert bill.charged == ends[Outcome.ANSWERED]
    assert bill.during_outage <= 3 * 8 + 1 / COOLDOWN + 1

    # who comes while it is out finds that out in one request per cool-down
    again = harness.run(rows, max_outage_seconds=1)
    assert Counter(again.outcomes) == ends
    assert simulator.bill.totals.during_outage - bill.during_outage <= 1 / COOLDOWN + 1

    simulator.recover()
    assert harness.run(rows).texts == [str(n) for n in range(ROWS)]
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (ROWS, 0)
    assert harness.shared_state().opened_at is None
    assert harness.problems() == []


# interrupts


Prepare = Callable[[Harness, Simulator], dict[str, Any]]


def out(harness: Harness, simulator: Simulator) -> dict[str, Any]:
    simulator.outage()
    return {}


def paused(harness: Harness, simulator: Simulator) -> dict[str, Any]:
    simulator.outage("503 retry_after=60")
    return {"concurrency": 2}


def paced(harness: Harness, simulator: Simulator) -> dict[str, Any]:
    return {"rates": Rates(requests_per_minute=1)}


def out_of_money(harness: Harness, simulator: Simulator) -> dict[str, Any]:
    """All of the money is set aside for two requests that are not answered."""
    provider, messages = harness.provider, question("[[token=1]] row 1").messages
    worst = provider.worst_case(provider.prompt_tokens_bound(messages), provider.ceiling)
    harness.limits = (Limit(scope_of(DATASET), "total", "usd", 2 * worst),)
    simulator.hold()
    return {}


@pytest.mark.behaviour("A-30")
@pytest.mark.parametrize(
    ("held_up", "said", "sent"),
    [
        (out, "the provider is down", 10),
        (paused, "paused for", 1),
        (paced, "keeping to limits.requests_per_minute", 1),
        (out_of_money, "wait for money", 2),
    ],
)
def test_an_interrupt_ends_every_wait_within_the_drain(
    harness: Harness,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    held_up: Prepare,
    said: str,
    sent: int,
) -> None:
    cool_down_for(monkeypatch, 60)
    limits = held_up(harness, simulator)
    background = Background(harness.engine(drain_seconds=0.5, **limits), questions(30))
    assert simulator.bill.wait_for(lambda totals: totals.requests >= sent)
    time.sleep(1)  # it stands still now
    waits_for = background.engine.progress.waiting_for
    assert said in str(waits_for)
    asked = simulator.bill.totals.requests
    began = time.monotonic()
    background.interrupt()
    background.join()
    assert time.monotonic() - began < PROMPTLY
    assert background.error is None
    assert background.engine.stopped is INTERRUPTED
    assert simulator.bill.totals.requests == asked
    ends = {row.outcome for row in background.rows}
    assert ends <= {Outcome.ANSWERED, Outcome.NOT_ATTEMPTED}
    assert "open" not in harness.states()
    assert harness.problems() == []


# as a user sees it


@pytest.mark.behaviour("A-17")
def test_a_partition_waits_for_the_next_run_when_the_provider_stays_out(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(30), limits={"max_outage_seconds": 0.5})
    bench.snapshot()
    simulator.outage()
    result = bench.run(raise_on_error=False)
    assert set(bench.states().values()) == {"failed"}
    assert {row["_error_code"] for row in bench.rows(REJECTED)} == {"breaker_open"}
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    said = str(failure.step_failure_data)
    assert "has been down since" in said
    assert "30 rows waiting for another run" in said
    simulator.recover()
    assert len(bench.run_missing()) == 3
    assert set(bench.states().values()) == {"done"}
    assert (simulator.bill.totals.charged, simulator.bill.totals.repeats) == (30, 0)


@pytest.mark.behaviour("A-30")
def test_an_interrupt_in_an_outage_ends_the_step_at_once(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cool_down_for(monkeypatch, 60)
    bench = make_bench(numbered(30))
    bench.snapshot()
    simulator.outage()
    interrupted_at: list[float] = []

    def interrupt() -> None:
        assert simulator.bill.wait_for(lambda totals: totals.during_outage >= 10)
        time.sleep(0.5)
        interrupted_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(DagsterExecutionInterruptedError):
        bench.run()
    assert time.monotonic() - interrupted_at[0] < PROMPTLY
    thread.join()
    assert simulator.bill.totals.charged == 0
    assert bench.contradictions() == []
