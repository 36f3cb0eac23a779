"""One budget and several processes: the provider's bill never passes it, and comes close to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.llm.prices import Prices, usd
from ondine_dagster.simulator import FaultPlan, Simulator, TokenRules
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness
from ondine_dagster_tests.engine.spenders import rows

ROOT = Path(__file__).parents[2]
SPENDERS = "ondine_dagster_tests.engine.spenders"
# the answers are dear and have four tokens, so that a request costs about half of its worst case
PRICES = {"input_per_million_usd": "0.15", "output_per_million_usd": "60"}
BILLED = Prices.per_million_usd(input=Decimal("0.15"), output=Decimal("60"))
ROWS, EACH = 200, 32
WORTH_ROWS = 300
FAULTS = {"500": 0.03, "503": 0.03, "reset_after": 0.04}
LIMITED = {"429": 0.02, "500": 0.02, "503": 0.02, "reset_after": 0.04}

Ends = list[list[Any]]


class Spenders:
    """Processes on the ledger of a harness, and what the ledger says of them."""

    def __init__(self, harness: Harness, budget: int, llm: dict[str, Any]) -> None:
        self.harness = harness
        self.budget = budget
        self._llm = llm

    def run(self, processes: int, concurrency: int = EACH) -> list[Ends | None]:
        """Run to the end; return outcome, code, message and number of rows for each process."""
        settings = {
            "base_url": self.harness.provider.base_url,
            "llm": self._llm,
            "budget": self.budget,
            "rows": ROWS,
            "processes": processes,
            "concurrency": concurrency,
        }
        folder = self.harness.ledger.path.parent
        ended = subprocess.run(
            [sys.executable, "-m", SPENDERS, str(folder), json.dumps(settings)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        found: list[Ends | None] = json.loads(ended.stdout)
        return found

    def in_state(self, state: str) -> Counter[int]:
        """Return how many requests of each process stand in a state, by the id of the process."""
        statement = (
            "SELECT pid FROM attempts JOIN processes ON processes.id = attempts.process "
            "WHERE attempts.state = ?"
        )
        with self.harness.ledger.database.read() as connection:
            return Counter(connection.exec_driver_sql(statement, (state,)).scalars())

    @property
    def settled(self) -> int:
        return sum(one.cost for one in self.harness.attempts() if one.state == "settled")

    @property
    def unknown(self) -> int:
        return sum(one.reserved for one in self.harness.attempts() if one.state == "unknown")

    @property
    def worst(self) -> int:
        """Return what any of the rows needs at most."""
        provider = self.harness.provider
        longest = max((one.messages for one in rows(9, ROWS)), key=len)
        return provider.worst_case(provider.prompt_tokens_bound(longest), provider.ceiling)

    def assert_spent(self, simulator: Simulator) -> None:
        """Assert that the bill is within the budget, and that no request fits any more."""
        bill = simulator.bill.totals
        assert self.settled <= bill.picodollars <= self.settled + self.unknown <= self.budget
        assert bill.picodollars >= self.budget - self.unknown - self.worst
        assert self.unknown < self.budget / 2, "so much is unknown that this proves little"
        assert bill.repeats <= self.harness.states().get("unknown", 0)
        assert self.harness.problems() == []


@pytest.fixture
def make_spenders(
    make_harness: MakeHarness, simulator_factory: Callable[..., Simulator]
) -> Callable[..., tuple[Spenders, Simulator]]:
    """Make a provider, a ledger, and a budget that is worth about 300 rows."""

    def make(max_tokens: int = 8, **settings: Any) -> tuple[Spenders, Simulator]:
        simulator = simulator_factory(prices=BILLED, **settings)
        llm = {"max_tokens": max_tokens, "prices": PRICES}
        make_harness(simulator.base_url, "elsewhere", **llm).run(rows(0, 1))
        budget = WORTH_ROWS * simulator.bill.totals.picodollars
        simulator.reset()
        return Spenders(make_harness(simulator.base_url, "shared", **llm), budget, llm), simulator

    return make


def assert_answered_or_told(ends: Ends) -> None:
    """Assert that every row was answered or says why it waits."""
    assert sum(count for *_, count in ends) == ROWS
    for outcome, code, message, _ in ends:
        if outcome == "answered":
            continue
        assert (outcome, code) == ("not_attempted", "budget_used_up")
        assert message.startswith("limits.budget_usd of dataset test ($")
        assert "is used up: it has $" in message
        assert "`ondine-dagster run test`: only the rest is paid" in message


def rows_that(outcome: str, found: Sequence[Ends | None]) -> int:
    return sum(count for ends in found for end, *_, count in ends or () if end == outcome)


def test_eight_processes_with_faults_and_a_kill_stay_within_one_budget_and_use_it_up(
    make_spenders: Callable[..., tuple[Spenders, Simulator]],
) -> None:
    spenders, simulator = make_spenders(latency_ms=10, jitter_ms=20)
    simulator.fail(FaultPlan(rates=FAULTS))
    with ThreadPoolExecutor(1) as pool:
        running: Future[list[Ends | None]] = pool.submit(spenders.run, 8)
        assert simulator.bill.wait_for(lambda totals: totals.answered >= 100, 60)
        simulator.hold()
        # no 429 so far, so that only the budget bounds what is in flight
        several = simulator.bill.wait_for(lambda totals: totals.in_flight >= 16)
        ((victim, in_flight),) = spenders.in_state("open").most_common(1)
        os.kill(victim, signal.SIGKILL)
        simulator.fail(FaultPlan(rates=LIMITED))
        simulator.release()
        found = running.result()
    assert several
    assert found.count(None) == 1
    survivors = [ends for ends in found if ends is not None]
    for ends in survivors:
        assert_answered_or_told(ends)
        assert rows_that("not_attempted", [ends]) > 0
    spenders.assert_spent(simulator)
    assert spenders.in_state("unknown")[victim] >= in_flight
    assert not spenders.in_state("open")


@pytest.mark.parametrize(
    ("tokens", "max_tokens"),
    [(TokenRules(per_byte=True), 16), (TokenRules(reasoning=4), 8)],
    ids=["as many as bytes", "hidden"],
)
def test_it_holds_where_tokens_use_up_the_whole_bound(
    make_spenders: Callable[..., tuple[Spenders, Simulator]], tokens: TokenRules, max_tokens: int
) -> None:
    spenders, simulator = make_spenders(max_tokens, latency_ms=10, jitter_ms=20, tokens=tokens)
    simulator.fail(FaultPlan(rates=FAULTS))
    found = spenders.run(3)
    for ends in found:
        assert ends is not None
        assert_answered_or_told(ends)
    assert rows_that("answered", found) == simulator.bill.totals.answered
    assert rows_that("not_attempted", found) > 0
    spenders.assert_spent(simulator)


def test_a_provider_that_ignores_the_ceiling_stops_all_and_the_truth_is_recorded(
    make_spenders: Callable[..., tuple[Spenders, Simulator]],
) -> None:
    spenders, simulator = make_spenders(tokens=TokenRules(reasoning=9000, ignore_ceiling=True))
    spenders.budget = 30 * spenders.worst
    simulator.hold()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(spenders.run, 3, 8)
        all_ask = simulator.bill.wait_for(lambda totals: totals.in_flight == 24, 60)
        simulator.release()
        found = running.result()
    assert all_ask
    bill = simulator.bill.totals
    assert bill.requests == rows_that("answered", found) == 24, "nothing is sent once it is known"
    assert rows_that("not_attempted", found) == 3 * ROWS - 24
    assert spenders.settled == bill.picodollars > spenders.budget
    assert spenders.unknown == 0
    assert spenders.harness.problems() == []
    messages = {message for ends in found for _, code, message, _ in ends or () if code}
    codes = {code for ends in found for _, code, _, _ in ends or () if code}
    assert codes == {"bound_violated"}
    over = {f"${usd(one.cost - one.reserved):.6f}" for one in spenders.harness.attempts()}
    assert any(amount in message for message in messages for amount in over)
