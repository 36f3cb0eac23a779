"""What stops a run before every row has met the same failure, and what the next run then does."""

from __future__ import annotations

import pytest

from ondine_dagster.engine import retry
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.harness import Harness, questions


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("fault", ["503", "500"])
def test_an_outage_stops_the_run_and_the_next_one_asks_what_is_missing(
    harness: Harness, simulator: Simulator, fault: str
) -> None:
    rows = questions(60)
    simulator.fail(FaultPlan(rates={fault: 1.0}))
    run = harness.run(rows, max_attempts=2, concurrency=4, max_outage_seconds=0)
    stopped = run.engine.stopped
    assert stopped is not None
    assert stopped.code is ErrorCode.BREAKER_OPEN
    assert run.outcomes.count(Outcome.NOT_ATTEMPTED) >= 60 - 10 - 2 * 4
    assert simulator.bill.totals.requests <= 2 * (10 + 2 * 4)

    simulator.fail(FaultPlan())
    again = harness.run(rows)
    assert set(again.outcomes) == {Outcome.ANSWERED}
    assert simulator.bill.totals.charged == 60


def test_rows_that_fail_between_answers_stop_nothing(
    harness: Harness, simulator: Simulator
) -> None:
    mixed = questions(60)
    mixed[::3] = questions(20, "[[fault=503]] {n}")
    run = harness.run(mixed, max_attempts=1, concurrency=1)
    assert run.engine.stopped is None
    assert run.outcomes == [Outcome.ERROR, Outcome.ANSWERED, Outcome.ANSWERED] * 20


def test_a_web_page_in_the_place_of_a_provider_is_noticed_after_a_few_rows(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.fail(FaultPlan(rates={"html_200": 1.0}))
    run = harness.run(questions(200), concurrency=4)
    assert run.engine.stopped is not None
    assert "llm.base_url" in run.engine.stopped.message
    assert simulator.bill.totals.requests <= 3 + 4
    assert run.outcomes.count(Outcome.NOT_ATTEMPTED) >= 200 - 3 - 4


def test_a_key_that_is_refused_inside_a_200_stops_the_run(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.fail(FaultPlan(rates={"error_in_200 status=401": 1.0}))
    run = harness.run(questions(100), concurrency=4)
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.UNAUTHORIZED
    assert simulator.bill.totals.requests <= 4
    assert set(run.outcomes) == {Outcome.NOT_ATTEMPTED}
    # what came with a 200 counts as paid, and holds no question back
    assert harness.states() == {"settled": simulator.bill.totals.requests}
    assert harness.problems() == []
