"""Rejected rows are asked again: those that were chosen, once, and nothing else is touched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import Ask, RequestContext, Reservation, Settlement
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import (
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
)

pytestmark = pytest.mark.behaviour("B-8")

ONCE = "[[token=t{n}]][[fault=null_content times=1]] row {n}"
TWICE = "[[token=t{n}]][[fault=null_content times=2]] row {n}"
REFUSED = "[[token=t{n}]][[fault=refusal times=1]] row {n}"
TRIO = (RESPONSES, RESULTS, REJECTED)
COSTS = ("_cost_usd", "_cost_source", "_attempts", "_latency_ms")


def mixed() -> list[Any]:
    """Return 20 rows in two partitions; in each, two rows succeed when asked again, one waits."""
    rows = []
    for first in (0, 10):
        rows += numbered(7, first=first) + numbered(2, ONCE, first=first + 7)
        rows += numbered(1, REFUSED, first=first + 9)
    return rows


def ids(bench: Bench, asset: str) -> list[str]:
    return [row["id"] for row in bench.rows(asset)]


def test_rows_of_classes_with_a_chance_are_asked_once_and_move_to_results(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed())
    bench.run_missing()
    assert charged() == 20
    before = {row["id"]: row for row in bench.rows(RESULTS)}
    assert ids(bench, REJECTED) == ["r7", "r8", "r9", "r17", "r18", "r19"]

    bench.retry()
    assert charged() == 4
    assert ids(bench, REJECTED) == ["r9", "r19"]
    after = bench.rows(RESULTS)
    assert [row["id"] for row in after] == [f"r{n}" for n in range(20) if n % 10 != 9]
    assert [row["response"] for row in after] == [f"t{row['id'][1:]}" for row in after]
    for row in after:  # the others stay as they are, to the last cell
        assert row["id"] not in before or row == before[row["id"]]
    kinds = bench.attempts("kind, count(*)", "1 GROUP BY kind")
    assert dict(tuple(row) for row in kinds) == {"first": 20, "retry": 4}
    assert bench.states() == {"rows-00000": "done", "rows-00001": "done"}

    bench.run()
    assert charged() == 0
    again = bench.rows(RESULTS)
    free = [{k: v for k, v in row.items() if k not in COSTS} for row in again]
    assert free == [{k: v for k, v in row.items() if k not in COSTS} for row in after]
    assert bench.contradictions() == []


def test_a_class_a_code_and_a_partition_can_be_named(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed())
    bench.run_missing()
    charged()
    bench.retry("rows-00001", classes="refused")
    assert charged() == 1
    assert ids(bench, REJECTED) == ["r7", "r8", "r9", "r17", "r18"]
    bench.retry("rows-00000", classes="capacity,transient")
    assert charged() == 0
    bench.retry("rows-00000", classes="row, row_retryable")
    assert charged() == 3
    assert ids(bench, REJECTED) == ["r17", "r18"]
    with pytest.raises(dg.Failure, match=r"no error class or code `capacty`\. Did you mean `capac"):
        bench.retry(classes="capacty")
    with pytest.raises(dg.Failure, match="`config` are never asked again by a retry"):
        bench.retry(classes="config")
    assert charged() == 0


def test_what_is_rejected_again_stays_with_the_new_reason_and_its_cost(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    fields = {"mark": {"type": "string"}}
    bench = make_bench(numbered(3) + numbered(1, TWICE, first=3), output={"fields": fields})
    bench.run_missing()
    before = bench.rows(RESULTS)
    (first,) = bench.rows(REJECTED)
    charged()
    spent = simulator.bill.totals.picodollars
    bench.retry()
    assert charged() == 1
    (second,) = bench.rows(REJECTED)
    assert second["_error_code"] == "content_null"
    assert (first["_attempts"], second["_attempts"]) == (1, 1)
    assert bench.rows(RESULTS) == before
    cost = bench.events(RESPONSES)[-1].asset_materialization
    assert cost is not None
    paid = (simulator.bill.totals.picodollars - spent) / 1e12
    assert cost.metadata["cost_usd"].value == pytest.approx(paid)
    bench.retry()
    assert charged() == 1
    assert bench.rows(REJECTED) == []


def test_equal_rows_share_a_retry(make_bench: MakeBench, charged: Callable[[], int]) -> None:
    same = [{"id": f"r{n}", "text": "[[token=a]][[fault=null_content times=1]]"} for n in range(12)]
    bench = make_bench(same)
    bench.run_missing()
    assert charged() == 1
    bench.retry()
    assert charged() == 1
    assert len(bench.rows(RESULTS)) == 12


def test_what_a_dead_retry_paid_is_taken_before_anybody_is_asked(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(5) + numbered(1, ONCE, first=5) + numbered(1, TWICE, first=6))
    bench.run_missing()
    files = {a: bench.lake.path("notes", a, "rows-00000").read_bytes() for a in TRIO}
    charged()
    bench.retry()
    assert charged() == 2
    for asset, content in files.items():  # as if it had died before it wrote them
        bench.lake.path("notes", asset, "rows-00000").write_bytes(content)
    assert len(bench.rows(REJECTED)) == 2

    bench.retry()
    assert charged() == 0, "bought again"
    assert ids(bench, REJECTED) == ["r6"]
    bench.retry()
    assert charged() == 1, "another call of a person asks again"
    assert bench.rows(REJECTED) == []


def test_a_run_that_dagster_repeats_does_not_ask_again(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    always = "[[fault=null_content]] row {n}"
    bench = make_bench(numbered(2) + numbered(3, always, first=2), limits={"max_rejected": 0.1})
    bench.snapshot()
    bench.run(raise_on_error=False)
    charged()
    failed = bench.retry(raise_on_error=False)
    assert (failed.success, charged()) == (False, 3)
    bench.run(
        assets=TRIO,
        tags={
            "ondine/retry": "all",
            "dagster/root_run_id": failed.run_id,
            "dagster/backfill": failed.run_id,
        },
        raise_on_error=False,
    )
    assert charged() == 0


def test_a_budget_that_is_used_up_leaves_the_rest_as_it_was(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(6) + numbered(4, ONCE, first=6)
    bench = make_bench(
        rows, limits={"concurrency": 1, "budgets": [{"requests": 12, "per": "total"}]}
    )
    bench.run_missing()
    charged()
    with pytest.raises(dg.Failure) as failed:
        bench.retry()
    assert "2 rejected rows not asked again, and left as before" in str(failed.value.description)
    assert charged() == 2
    assert len(bench.rows(RESULTS)) == 8
    assert {row["_error_code"] for row in bench.rows(REJECTED)} == {"content_null"}
    assert bench.states() == {"rows-00000": "done"}
    assert bench.contradictions() == []

    bench = make_bench(limits={"max_rejected": 1})
    bench.retry()
    assert charged() == 2
    assert bench.rows(REJECTED) == []


def test_a_retry_that_gets_under_the_limit_turns_the_partition_green(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(7) + numbered(3, ONCE, first=7), limits={"max_rejected": 0.2})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    assert bench.partitions_in_ui(RESULTS) == (set(), {"rows-00000"})
    bench.retry()
    assert bench.states() == {"rows-00000": "done"}
    assert bench.partitions_in_ui(RESULTS) == ({"rows-00000"}, set())


def test_the_job_works_from_a_launchpad_and_leaves_no_class_out(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed())
    bench.run_missing()
    charged()
    job = bench.definitions.resolve_job_def("notes__retry_rejected")
    result = job.execute_in_process(instance=bench.instance, partition_key="rows-00001")
    assert result.success
    assert charged() == 2
    assert ids(bench, REJECTED) == ["r7", "r8", "r9", "r19"]
    job.execute_in_process(
        instance=bench.instance,
        partition_key="rows-00000",
        tags={"ondine/retry": "refused,row_retryable"},
    )
    assert charged() == 3
    assert ids(bench, REJECTED) == ["r19"]


def test_what_cannot_be_retried_is_refused_before_money_is_spent(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed())
    bench.snapshot()
    bench.run(assets=["raw_rows", "prompts"])
    with pytest.raises(dg.Failure, match="was never asked"):
        bench.retry()
    bench.run()
    charged()
    other = make_bench(prompt={"template": "Again: {{ text }}"})
    other.run(assets=["raw_rows", "prompts"])
    with pytest.raises(dg.Failure, match="have changed since it was asked"):
        other.retry()
    assert charged() == 0


def test_rows_that_were_edited_since_are_not_asked_as_if_they_were_the_same(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = mixed()
    bench = make_bench(rows)
    bench.run_missing()
    charged()
    rows[8] = {"id": "r8", "text": "another text under the same key"}
    edited = make_bench(rows)
    edited.snapshot()
    edited.run(assets=["raw_rows", "prompts"])
    with pytest.raises(dg.Failure, match="its rows have changed since it was asked"):
        edited.retry("rows-00000")
    assert charged() == 0


@pytest.mark.two_threads
def test_two_retries_at_once_pay_once(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed())
    bench.run_missing()
    charged()
    simulator.hold()
    runs = [threading.Thread(target=bench.retry) for _ in range(2)]
    for run in runs:
        run.start()
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 4)
    simulator.release()
    for run in runs:
        run.join()
    assert charged() == 4
    assert ids(bench, REJECTED) == ["r9", "r19"]


def test_a_dataset_without_partitions_is_retried_as_a_whole(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed(), partitions="none")
    bench.run_missing()
    charged()
    job = bench.definitions.resolve_job_def("notes__retry_rejected")
    assert job.execute_in_process(instance=bench.instance).success
    assert charged() == 4
    assert ids(bench, REJECTED) == ["r9", "r19"]


def test_a_row_that_was_cut_still_waits_for_the_raised_ceiling_after_a_retry_of_others(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    rows = [{"id": "long", "text": f"[[token={'long' * 20}]]"}, *numbered(1, ONCE)]
    llm = declaration(simulator)["llm"]
    bench = make_bench(rows, llm={**llm, "max_tokens": 5})
    bench.run_missing()
    raised = make_bench(llm={**llm, "max_tokens": 500})
    raised.retry()
    assert ids(raised, RESULTS) == ["r0"]
    charged()
    assert raised.run_missing() == ["rows-00000"]
    assert charged() == 1
    assert ids(raised, RESULTS) == ["long", "r0"]


def test_a_held_row_stays_rejected_and_a_retry_says_so(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(2) + numbered(1, ONCE, first=2)
    bench = make_bench(rows, limits={"on_unknown": "hold", "max_attempts": 1})
    bench.run_missing()
    charged()
    (asked,) = bench.attempts("id", "class = 'row_retryable'")
    key = bench.rows(RESPONSES)[2]["answer_key"]
    _leave_unknown(bench, bytes(asked.id), key)
    with pytest.raises(dg.Failure, match="may have been billed without an answer"):
        bench.retry()
    assert charged() == 0
    (row,) = bench.rows(REJECTED)
    assert row["_error_code"] == "content_null"


def _leave_unknown(bench: Bench, attempt: bytes, key: bytes) -> None:
    """Record that a request for the question was sent and nobody knows its end."""
    context = RequestContext.of(bench.pipeline.provider, dataset="notes", run_scope="dead")
    lost = Reservation(
        attempt=new_id(),
        context=context,
        asks=(Ask(key, "r2", attempt),),
        reserved=1,
        reserved_tokens=1,
        request_bytes=1,
        kind="retry",
    )
    assert bench.ledger.reserve(lost).go == [key]
    bench.ledger.settle(Settlement(lost.attempt, "unknown"))


# the fallback


def with_fallback(simulator: Simulator, **fallback: Any) -> dict[str, Any]:
    llm = declaration(simulator)["llm"]
    prices = {"input_per_million_usd": "15", "output_per_million_usd": "60"}
    return {**llm, "fallback": {"name": "larger-model", "prices": prices, **fallback}}


def test_the_fallback_answers_for_rejected_rows_and_no_run_loses_that(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    bench = make_bench(mixed(), llm=with_fallback(simulator))
    bench.run_missing()
    assert charged() == 20
    cheap = simulator.bill.totals.picodollars
    bench.retry(classes="row,row_retryable")
    assert charged() == 6
    assert bench.rows(REJECTED) == []
    models = {row["id"]: row["_model_served"] for row in bench.rows(RESULTS)}
    larger = {"r7", "r8", "r9", "r17", "r18", "r19"}
    assert {key for key, model in models.items() if model == "larger-model"} == larger
    asked = {row["model_requested"] for row in bench.rows(RESPONSES)}
    assert asked == {"demo-model", "larger-model"}
    dear = bench.attempts("sum(cost) AS cost", "model_requested = 'larger-model'")[0].cost
    assert dear > cheap, "six requests at a hundred times the price"
    results = bench.rows(RESULTS)

    same = [name for name in results[0] if name not in COSTS]
    bench.run(assets=[RESULTS, REJECTED])
    assert bench.rows(RESULTS) == results
    bench.run()
    assert charged() == 0
    assert [[row[k] for k in same] for row in bench.rows(RESULTS)] == [
        [row[k] for k in same] for row in results
    ]
    assert bench.states() == {"rows-00000": "done", "rows-00001": "done"}
    bench.retry(classes="row,row_retryable")
    assert charged() == 0
    assert bench.contradictions() == []


def test_a_row_that_nobody_could_answer_keeps_what_the_fallback_answered(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    failing = "[[token=t{n}]][[fault=500 times=1]] row {n}"
    bench = make_bench(
        numbered(3) + numbered(1, failing, first=3),
        llm=with_fallback(simulator),
        limits={"max_attempts": 1},
    )
    bench.run_missing()
    assert [row["_error_code"] for row in bench.rows(REJECTED)] == ["server_error"]
    charged()
    bench.retry()
    assert charged() == 1
    bench.run()
    assert charged() == 0
    assert bench.rows(RESULTS)[3]["_model_served"] == "larger-model"


def test_what_the_fallback_is_rejected_for_is_the_new_reason_and_it_is_asked_again(
    make_bench: MakeBench, simulator: Simulator, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(2) + numbered(1, TWICE, first=2), llm=with_fallback(simulator))
    bench.run_missing()
    charged()
    bench.retry()
    assert charged() == 1
    (row,) = bench.rows(REJECTED)
    assert row["_model_served"] == "larger-model"
    bench.run()
    assert charged() == 0
    assert bench.rows(REJECTED)[0]["_model_served"] == "larger-model"
    bench.retry()
    assert charged() == 1
    assert bench.rows(REJECTED) == []


def test_a_fallback_without_a_known_price_is_refused(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    with pytest.raises(Exception, match=r"`llm\.fallback\.prices` is missing"):
        make_bench(numbered(1), llm=with_fallback(simulator, prices=None))
