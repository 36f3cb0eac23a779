"""Rows that are asked several times: each sample paid once and kept, the majority in results."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ondine_dagster.assets.planning.plan import DatasetPlan, plan_rows
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.assets.rows.samples import samples_remark
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.storage.export import export
from ondine_dagster_tests.workbench import (
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
)

FIELDS = {"urgent": {"type": "boolean"}, "note": {"type": "string"}}


def rows(*faults: str) -> list[dict[str, str]]:
    """Return a row for each fault, such as `another_answer 1`; an empty one is none."""
    texts = []
    for n, fault in enumerate(faults):
        name, _, times = fault.partition(" ")
        marker = f"[[fault={name} times={times}]] " if fault else ""
        texts.append({"id": f"r{n}", "text": f"{marker}[[token=t{n}]]"})
    return texts


def planned(bench: Bench) -> DatasetPlan:
    snapshot = bench.pipeline.snapshot(bench.lake)
    keys = bench.partitions()
    with reading(bench.data / "ledger.sqlite") as ledger:
        return plan_rows(bench.pipeline, bench.lake, (bench.lake, snapshot), keys, keys, ledger)


def test_each_sample_is_paid_once_and_the_majority_wins(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(
        rows("", "another_answer 1", "another_answer 2", "wrong_schema 1"),
        samples=3,
        output={"fields": FIELDS},
    )
    bench.snapshot()
    plan = planned(bench)
    assert (plan.rows, plan.run.requests) == ({Need.NEW: 4}, 12)
    bench.run()
    assert charged() == 12
    results = bench.rows(RESULTS)
    assert [round(row["_agreement"], 3) for row in results] == [1, 0.667, 0.667, 0.667]
    assert [row["_attempts"] for row in results] == [3] * 4
    assert [row["note"] for row in results] == ["t0", "t1", "t2 or not", "t3"]
    for row in results:
        votes = json.loads(row["_votes"])["urgent"]
        assert row["urgent"] is votes[0][0]
        assert sum(count for _, count in votes) == (2 if row["id"] == "r3" else 3)
    for row in bench.rows(RESPONSES):
        samples = row["samples"]
        assert len({one["answer_key"] for one in samples}) == 3
        assert samples[0]["answer_key"] == row["answer_key"]
        assert sum(one["cost_usd"] for one in samples) == row["cost_usd"]
        assert row["attempts"] == 3
    assert bench.contradictions() == []
    assert planned(bench).rows == {Need.PAID: 4}
    export(bench.lake, "notes", bench.folder / "out.csv")
    assert (bench.folder / "out.csv").read_text().splitlines()[0].endswith("_agreement,_votes")

    # parsed again for nothing, from what is kept
    before = [(row["urgent"], row["_agreement"]) for row in results]
    bench.run(assets=[RESULTS, REJECTED])
    again = [(row["urgent"], row["_agreement"]) for row in bench.rows(RESULTS)]
    assert (again, charged()) == (before, 0)


def test_more_samples_pay_only_for_the_new_ones(
    make_bench: MakeBench, charged: Callable[[], int], simulator: Any
) -> None:
    bench = make_bench(numbered(12))
    bench.run_missing()
    assert charged() == 12
    for count, more in ((3, 24), (5, 24), (1, 0)):
        bench.declare(declaration(simulator, samples=count))
        assert set(bench.states().values()) == {"stale"}
        assert planned(bench).everything.requests == more
        bench.run()
        assert charged() == more
        assert set(bench.states().values()) == {"done"}
        results = bench.rows(RESULTS)
        assert [row["response"] for row in results] == [f"t{n}" for n in range(12)]
        assert ("_agreement" in results[0]) is (count > 1)
        assert ("samples" in bench.table(RESPONSES).column_names) is (count > 1)
    assert bench.contradictions() == []


def test_equal_rows_share_their_samples(make_bench: MakeBench, charged: Callable[[], int]) -> None:
    bench = make_bench([{"id": f"r{n}", "text": "[[token=same]]"} for n in range(5)], samples=3)
    bench.snapshot()
    assert planned(bench).run.requests == 3
    bench.run()
    assert charged() == 3
    assert [row["response"] for row in bench.rows(RESULTS)] == ["same"] * 5


def test_a_row_waits_while_a_sample_does_and_nothing_is_paid_twice(
    make_bench: MakeBench, charged: Callable[[], int], simulator: Any
) -> None:
    limits = {"budgets": [{"requests": 8, "per": "run"}], "concurrency": 1}
    bench = make_bench(numbered(4), samples=3, limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    assert charged() == 8
    outcomes = [row["outcome"] for row in bench.rows(RESPONSES)]
    assert sorted(outcomes) == ["answered", "answered", "not_attempted", "not_attempted"]
    (status,) = bench.status().partitions
    assert (status.results, status.waiting) == (2, 2)
    bench.declare(declaration(simulator, samples=3))
    assert bench.run_missing() == ["rows-00000"]
    assert charged() == 4
    assert {row["_agreement"] for row in bench.rows(RESULTS)} == {1}


def test_a_retry_asks_only_the_samples_that_are_of_no_use(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(
        rows("wrong_schema 2", "", "wrong_schema 3", "wrong_schema 1"),
        samples=3,
        output={"fields": FIELDS},
    )
    bench.run_missing()
    assert charged() == 12
    assert [row["id"] for row in bench.rows(REJECTED)] == ["r0", "r2"]
    bench.retry()
    assert charged() == 5
    assert not bench.rows(REJECTED)
    assert [round(row["_agreement"], 3) for row in bench.rows(RESULTS)] == [1, 1, 1, 0.667]
    bench.run()
    bench.retry()
    assert charged() == 0
    assert bench.contradictions() == []


def test_a_fallback_answers_the_samples_that_are_of_no_use(
    make_bench: MakeBench, charged: Callable[[], int], simulator: Any
) -> None:
    llm = declaration(simulator)["llm"]
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 2}
    bench = make_bench(
        rows("wrong_schema 2", ""),
        samples=3,
        output={"fields": FIELDS},
        llm={**llm, "fallback": {"name": "larger-model", "prices": prices}},
    )
    bench.run_missing()
    assert charged() == 6
    bench.retry()
    assert charged() == 2
    asked = [
        sorted(one["model_requested"] for one in row["samples"]) for row in bench.rows(RESPONSES)
    ]
    assert asked == [["demo-model", "larger-model", "larger-model"], ["demo-model"] * 3]
    bench.run()
    assert charged() == 0
    assert len(bench.rows(RESULTS)) == 2


def test_skipped_and_unrendered_rows_have_no_samples(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    table = [*numbered(2), {"id": "r2", "text": ""}]
    bench = make_bench(table, samples=3, when="id != 'r1'")
    bench.run_missing()
    assert charged() == 3
    found = {row["_row_key"]: row for row in bench.rows(RESPONSES)}
    assert [found[f"r{n}"]["outcome"] for n in range(3)] == ["answered", "skipped", "error"]
    assert found["r1"]["samples"] is found["r2"]["samples"] is None
    (first, skipped) = bench.rows(RESULTS)
    assert (first["_agreement"], skipped["_agreement"], skipped["_votes"]) == (1, None, None)


@pytest.mark.slow
def test_rows_that_agree_little_go_to_another_dataset(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    """The agreement comes over as a column, so that a larger model can be asked for those."""
    first = make_bench(
        rows("", "another_answer 1"), samples=3, output={"fields": {"urgent": {"type": "boolean"}}}
    )
    first.run_missing()
    charged()
    second = {"name": "second", "source": {"dataset": "notes"}, "when": "_agreement < 1"}
    bench = make_bench(**second, samples=1)
    bench.run_missing()
    assert charged() == 1
    assert [row["_outcome"] for row in bench.rows(RESULTS)] == ["skipped", "ok"]
    third = make_bench(name="third", source={"dataset": "notes"}, samples=2)
    third.run_missing()
    assert charged() == 3  # the question of one of them is paid already


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"temperature": 0}, "and llm.temperature 0: the answers to a row will hardly differ"),
        ({"seed": 7, "temperature": 1}, "and llm.seed is declared: the answers"),
        ({"temperature": 0.7}, ""),
        ({}, ""),
    ],
)
def test_answers_that_will_hardly_differ_are_said_before_they_are_paid(
    make_bench: MakeBench, simulator: Any, sampling: dict[str, Any], said: str
) -> None:
    llm = {**declaration(simulator)["llm"], **sampling}
    bench = make_bench(numbered(1), samples=3, llm=llm)
    assert said in (samples_remark(bench.pipeline) or "")
    assert bool(samples_remark(bench.pipeline)) is bool(said)
    assert samples_remark(make_bench(llm=llm).pipeline) is None
    if sampling.get("temperature") != 0:
        return
    bench.snapshot()
    bench.run(assets=["raw_rows", "prompts"])
    event = bench.events("prompts")[-1].event_log_entry.asset_materialization
    assert event is not None
    assert said in str(event.metadata["samples"].value)


def test_samples_of_many_rows_go_together_and_those_of_one_row_apart(
    make_bench: MakeBench, simulator: Any
) -> None:
    bench = make_bench(
        numbered(10, "[[token=t{n}]] {n}"), samples=3, batching={"rows_per_request": 5}
    )
    bench.snapshot()
    bench.run()
    assert simulator.bill.totals.charged == 6
    rows = bench.rows(RESULTS)
    assert [(row["response"], row["_agreement"]) for row in rows] == [
        (f"t{n}", 1) for n in range(10)
    ]
    asked = [len(row["samples"]) for row in bench.rows(RESPONSES)]
    assert asked == [3] * 10
    assert bench.contradictions() == []
