"""The ledger cannot be written any more while requests are in flight."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.ledger.database import LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.harness import Harness, questions
from ondine_dagster_tests.ledger.bad_disk import IN_FLIGHT, die, unwritable_in_flight

ROWS = 60


@pytest.mark.behaviour("A-7")
@pytest.mark.behaviour("A-21")
@pytest.mark.parametrize("how", ["read-only", "locked", "limited"])
@pytest.mark.parametrize("dies", [False, True], ids=["same process", "next process"])
def test_answers_that_come_while_the_ledger_cannot_be_written_are_never_paid_again(
    harness: Harness, simulator: Simulator, how: str, dies: bool
) -> None:
    rows = questions(ROWS)
    with unwritable_in_flight(simulator, harness.ledger, how):
        with suppress(LedgerUnavailable):
            harness.run(rows, concurrency=IN_FLIGHT)
        assert harness.ledger.broken
        assert f"What {IN_FLIGHT} requests brought since is safe" in str(harness.ledger.broken)
        bill = simulator.bill.totals
        assert bill.charged < ROWS, "sending stopped"
        assert harness.states()["open"] == IN_FLIGHT
        if dies:
            die(harness.ledger)
    if dies:
        harness.ledger = Ledger(harness.ledger.path)
    again = harness.run(rows)
    assert set(again.outcomes) == {Outcome.ANSWERED}
    assert again.texts == [str(n) for n in range(ROWS)]
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (ROWS, 0)
    assert harness.states() == {"settled": ROWS}
    assert harness.problems() == []
    assert harness.ledger.broken is None
