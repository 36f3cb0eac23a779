"""What stops a run before every row has met the same failure, and what the next run then does."""

from __future__ import annotations

import pytest

from ondine_dagster.engine import retry
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.errors import ErrorClass
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.harness import Harness, questions


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("fault", ["503", "429 retry_after=0", "500"])
def test_an_outage_stops_the_run_and_the_next_one_asks_what_is_missing(
    harness: Harness, simulator: Simulator, fault: str
) -> None:
    rows = questions(60)
    simulator.fail(FaultPlan(rates={fault: 1.0}))
    run = harness.run(rows, max_attempts=2, concurrency=4)
    stopped = run.engine.stopped
    assert stopped is not None
    assert stopped.error_class in (ErrorClass.TRANSIENT, ErrorClass.CAPACITY)
    assert run.outcomes.count(Outcome.NOT_ATTEMPTED) >= 60 - 10 - 2 * 4
    assert simulator.bill.totals.requests <= 2 * (10 + 2 * 4)

    simulator.fail(FaultPlan())
    again = harness.run(rows)
    assert set(again.outcomes) == {Outcome.ANSWERED}
    assert simulator.bill.totals.charged == 60


def test_rows_that_fail_between_answers_stop_nothing(
    harness: Harness, simulator: Simulator
) -> None:
    bad = questions(30, "[[fault=503]] {n}")
    good = questions(30)
    mixed = [row for pair in zip(bad, good, strict=True) for row in pair]
    run = harness.run(mixed, max_attempts=1, concurrency=1)
    assert run.engine.stopped is None
    assert run.outcomes == [Outcome.ERROR, Outcome.ANSWERED] * 30


def test_a_web_page_in_the_place_of_a_provider_is_noticed_after_a_few_rows(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.fail(FaultPlan(rates={"html_200": 1.0}))
    run = harness.run(questions(200), concurrency=4)
    assert run.engine.stopped is not None
    assert "llm.base_url" in run.engine.stopped.message
    assert simulator.bill.totals.requests <= 3 + 4
    assert run.outcomes.count(Outcome.NOT_ATTEMPTED) >= 200 - 3 - 4
