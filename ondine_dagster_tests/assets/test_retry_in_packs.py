"""Rows that are asked again in a dataset whose rows go together: which go together then, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ondine_dagster.assets.retry import Retry
from ondine_dagster.assets.rows.paying_again import PAY_AGAIN_TAG
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.purge import purge
from ondine_dagster.llm.asking_again import Selection
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.assets.test_retry import with_fallback
from ondine_dagster_tests.workbench import (
    REJECTED,
    RESULTS,
    MakeBench,
    declaration,
    numbered,
)


@pytest.mark.parametrize("other_model", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_failed_for_no_fault_of_its_own_is_asked_again_in_packs(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int], other_model: bool
) -> None:
    sections: dict[str, Any] = {
        "limits": {"max_attempts": 1, "max_rejected": 1},
        "partitions": {"rows": 15},
        "llm": with_fallback(simulator) if other_model else declaration(simulator)["llm"],
    }
    simulator.fail(FaultPlan(seed=3, rates={"500": 0.3, "null_content": 0.2}))
    bench = make_bench(numbered(30), **sections)
    bench.run_missing()
    rejected = Counter(
        (int(row["id"][1:]) // 15, row["_error_class"] == "transient")
        for row in bench.rows(REJECTED)
    )
    packs = sum(-(-rows // 3) for (_, transient), rows in rejected.items() if transient)
    alone = sum(rows for (_, transient), rows in rejected.items() if not transient)
    assert packs >= 3 and alone >= 3
    simulator.fail(FaultPlan())
    bench.declare(declaration(simulator, **sections, batching={"rows_per_request": 3}))
    again = Retry(bench.pipeline, bench.lake, Selection())
    with bench.ledger.database.read() as connection:
        plan = again.plan(bench.partitions(), connection)
    assert (plan.questions, plan.estimate.requests) == (rejected.total(), packs + alone)
    charged()

    bench.retry()
    assert charged() == packs + alone
    sizes = Counter(map(len, simulator.bill.snapshot().carried[-packs - alone :]))
    assert sizes[1] >= alone and sum(size * n for size, n in sizes.items()) == rejected.total()
    assert [row["response"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(30)]
    dear = bench.attempts("*", "model_requested = 'larger-model'")
    asked_again = dear if other_model else bench.attempts("*", "kind = 'retry'")
    assert len(asked_again) == packs + alone
    bench.run()
    assert charged() == 0
    assert bench.contradictions() == []


def test_answers_whose_texts_are_gone_are_paid_again_in_packs(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(10), batching={"rows_per_request": 4})
    bench.run_missing()
    assert charged() == 3
    purge(bench.ledger.database, now_ms() + 1000)
    bench.run(tags={PAY_AGAIN_TAG: "true"})
    assert charged() == 3
    assert [row["response"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(10)]
    bench.run()
    assert charged() == 0
    assert bench.contradictions() == []
