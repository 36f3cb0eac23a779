"""The files of a partition: nothing that was answered is replaced by less, and rows never mix."""

from __future__ import annotations

import dagster as dg
import pytest

from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.workbench import MakeBench, numbered


def test_a_run_that_answers_fewer_rows_keeps_the_files_in_place(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(10))
    bench.snapshot()
    bench.run()
    before = bench.rows("results")
    assert len(before) == 10

    bench.lose_ledger()
    simulator.fail(FaultPlan(rates={"401": 1.0}))
    with pytest.raises(dg.Failure, match="answer more rows than this run did, and were kept"):
        bench.run()
    assert bench.rows("results") == before
    assert bench.states() == {"rows-00000": "done"}


def test_results_are_refused_when_raw_rows_lie_in_another_order_now(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = numbered(10)
    bench = make_bench(rows)
    bench.snapshot()
    bench.run()

    bench = make_bench(rows[::-1])
    bench.snapshot()
    bench.run(assets=["raw_rows"])
    with pytest.raises(dg.Failure, match="made from other rows"):
        bench.run(assets=["results", "rejected_rows"])


def test_prompts_of_another_declaration_are_refused_before_money_is_spent(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(5))
    bench.snapshot()
    bench.run(assets=["raw_rows", "prompts"])

    bench = make_bench(numbered(5), prompt={"template": "Say it again: {{ text }}"})
    with pytest.raises(dg.Failure, match="Materialize `prompts` with `responses`"):
        bench.run(assets=["responses", "results", "rejected_rows"])
    assert simulator.bill.totals.requests == 0
