"""What requests are recorded to cost, against the provider's bill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, question, questions

# ten times the prices of the simulator: what is reported can be told from what is computed
DEAR = {"input_per_million_usd": "1.5", "output_per_million_usd": "6"}


@pytest.fixture
def dear(make_harness: MakeHarness, simulator: Simulator) -> Harness:
    """Return runs on a model that is declared dearer than its provider bills."""
    return make_harness(simulator.base_url, prices=DEAR)


def recorded(harness: Harness) -> list[tuple[Any, ...]]:
    return [(one.cost, one.cost_source) for one in harness.attempts()]


def test_a_cost_that_the_provider_reports_counts(dear: Harness, simulator: Simulator) -> None:
    simulator.settings = replace(simulator.settings, report_cost=True)
    run = dear.run(questions(5))
    assert {row.cost_source for row in run.rows} == {"provider"}
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
    assert sum(cost for cost, _ in recorded(dear)) == simulator.bill.totals.picodollars


@pytest.mark.behaviour("B-5")
def test_a_free_model_costs_nothing_because_the_provider_says_so(dear: Harness) -> None:
    (row,) = dear.run([question("[[fault=zero_cost]] [[token=a]]")]).rows
    assert (row.outcome, row.cost, row.cost_source) == (Outcome.ANSWERED, 0, "provider")
    assert recorded(dear) == [(0, "provider")]
    assert dear.problems() == []


@pytest.mark.parametrize(
    ("fault", "flags"),
    [
        ("missing_cost", ()),
        ("negative_cost", ("cost_unreadable",)),
        ("string_cost", ("cost_unreadable",)),
    ],
)
def test_without_a_readable_report_the_cost_is_computed(
    dear: Harness, simulator: Simulator, fault: str, flags: tuple[str, ...]
) -> None:
    (row,) = dear.run([question(f"[[fault={fault}]] [[token=a]]")]).rows
    assert (row.cost_source, row.flags) == ("computed", flags)
    assert row.cost == 10 * simulator.bill.totals.picodollars
