"""Datasets whose rows go together in requests: what people see before, while and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ondine_dagster.assets.planning.plan import plan_rows
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.workbench import RESPONSES, RESULTS, Bench, MakeBench, numbered

ROWS = 60
PROMPT = {"system": "Say what it is about. " * 20, "template": "Text: {{ text }}\nAnswer briefly."}
FIELDS = {"fields": {"token": {"type": "string"}, "score": {"type": "integer"}}}


def planned(bench: Bench) -> Any:
    snapshot = bench.pipeline.snapshot(bench.lake)
    keys = bench.partitions()
    with bench.ledger.database.read() as connection:
        return plan_rows(bench.pipeline, bench.lake, (bench.lake, snapshot), keys, keys, connection)


def test_a_dataset_in_packs_is_planned_asked_shown_and_never_paid_twice(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    sections: dict[str, Any] = {
        "partitions": {"rows": 40},
        "prompt": PROMPT,
        "output": FIELDS,
        "limits": {"concurrency": 1, "pilot_rows": 0},
    }
    bench = make_bench(numbered(ROWS), batching={"rows_per_request": 15}, **sections)
    bench.snapshot()
    plan = planned(bench)
    assert (plan.run.rows, plan.run.requests) == (ROWS, 3 + 2)  # no pack has rows of two partitions
    simulator.fail(FaultPlan(seed=1, rates={"pack_missing times=1": 0.4}))
    bench.run()
    assert [row["token"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(ROWS)]
    events = [one.asset_materialization for one in bench.events(RESPONSES)]
    shown = [one.metadata for one in {one.partition: one for one in events if one}.values()]
    totals = {
        name: sum(float(one[name].value) for one in shown)
        for name in ("requests", "rows_repaired", "rows_pack_missing", "cost_usd")
    }
    bill = simulator.bill.totals
    assert totals["requests"] == bill.requests > 5
    assert totals["cost_usd"] == pytest.approx(bill.picodollars / 1e12)
    repaired = [row for row in bench.rows(RESULTS) if "repaired" in (row["_flags"] or "")]
    assert totals["rows_repaired"] == totals["rows_pack_missing"] == len(repaired) > 0
    assert {row["_flags"] for row in repaired} == {"repaired,pack_missing"}
    assert all(1 < one["rows_per_request"].value <= 15 for one in shown)
    assert sum(row["_cost_usd"] for row in bench.rows(RESULTS)) * 10**12 == bill.picodollars
    assert bench.contradictions() == []
    charged()
    for rows in (1, "auto", 60):
        bench.declare(
            {
                **bench.dataset.model_dump(mode="json", exclude_unset=True),
                "batching": {"rows_per_request": rows},
            }
        )
        assert planned(bench).run.requests == 0
    bench.run()
    assert charged() == 0
