"""What jobs remember of what went wrong with them, which is nothing while nothing does."""

from __future__ import annotations

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.harness import Harness, questions


@pytest.mark.behaviour("A-26")
def test_good_rows_remember_nothing(harness: Harness) -> None:
    rows = harness.run(questions(20)).rows
    assert [row.events for row in rows] == [()] * 20


def test_rows_of_a_pack_whose_answers_are_damaged_say_so(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(4)
    simulator.fail(FaultPlan(rates={"pack_missing": 1.0}))
    rows = harness.run(questions(4)).rows
    assert {row.outcome for row in rows} == {Outcome.ANSWERED}
    assert {1} < {row.attempts for row in rows}
    for row in rows:
        assert [one.event for one in row.events] == ["damaged"] * (row.attempts - 1)
