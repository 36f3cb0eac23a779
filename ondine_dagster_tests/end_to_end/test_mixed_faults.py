"""A thousand rows, a fifth of the requests faulty: every row ends right, and as its own row."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import FaultPlan, Simulator, answer, prompt_sha256
from ondine_dagster_tests.workbench import (
    PROMPTS,
    REJECTED,
    RESULTS,
    Bench,
    MakeBench,
    numbered,
)

ROWS = 1000
MAX_ATTEMPTS = 6
FIELDS = {
    "label": {"type": "string", "enum": [f"label-{n}" for n in range(50)]},
    "score": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    "token": {"type": "string"},
}
# Asked again: refusals that may pass, and requests whose outcome nobody knows.
REFUSED = {"429 retry_after=0": 0.02, "500": 0.02, "503 retry_after=0": 0.02}
UNKNOWN = {"reset_after": 0.01, "truncated": 0.01, "half_close": 0.01, "html": 0.01}
# Final, with the class and the code that the row must end with.
FINAL = {
    "context_length": ("row", "context_length_exceeded"),
    "refusal": ("row", "refused"),
    "content_filter": ("row", "content_filtered"),
    "length": ("row", "truncated"),
    "wrong_schema": ("row_retryable", "field_missing"),
    "broken_content": ("row_retryable", "answer_not_json"),
    "malformed_json": ("row_retryable", "reply_not_json"),
    "empty_choices": ("row_retryable", "no_choices"),
    "null_content": ("row_retryable", "content_null"),
    "tool_calls": ("row_retryable", "tool_calls"),
}
PLAN = FaultPlan(seed=77, rates={**REFUSED, **UNKNOWN, **dict.fromkeys(FINAL, 0.01)})


def fates(prompt: str) -> list[str]:
    """Return the faults that the plan has for a prompt, up to the one that ends its row."""
    met: list[str] = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        fault = PLAN.planned(prompt, attempt)
        if fault is None:
            return met
        met.append(fault.name)
        if fault.name in FINAL:
            return met
    raise AssertionError("choose another seed: a row would use up its attempts")


@pytest.fixture
def bench(make_bench: MakeBench, simulator: Simulator) -> Bench:
    simulator.fail(PLAN)
    bench = make_bench(
        numbered(ROWS),
        partitions={"rows": 250},
        output={"fields": FIELDS},
        limits={"concurrency": 64, "max_attempts": MAX_ATTEMPTS, "max_unknown": 5},
    )
    bench.snapshot()
    bench.run()
    return bench


@pytest.mark.behaviour("E-10")
@pytest.mark.behaviour("E-13")
@pytest.mark.behaviour("A-18")
@pytest.mark.behaviour("P-7")
def test_each_of_a_thousand_rows_ends_as_its_own_prompt_deserves(
    bench: Bench, simulator: Simulator
) -> None:
    prompts = {row["_row_key"]: json.loads(row["messages"]) for row in bench.rows(PROMPTS)}
    results = {row["_row_key"]: row for row in bench.rows(RESULTS)}
    rejected = {row["_row_key"]: row for row in bench.rows(REJECTED)}
    assert results.keys() | rejected.keys() == prompts.keys()
    assert len(results) + len(rejected) == ROWS == len(prompts)

    schema = wire_schema(bench.dataset.output.fields)
    met: Counter[str] = Counter()
    for key, messages in prompts.items():
        faults = fates(prompt_sha256(messages))
        met.update(faults)
        _check_row(key, faults, results, rejected, json.loads(answer(messages, schema)))
    assert met.keys() >= {name.split()[0] for name in PLAN.rates}, "every fault was met"
    assert 0.15 * ROWS < met.total() < 0.30 * ROWS

    _check_money(bench, simulator, met)


def _check_row(
    key: str,
    faults: list[str],
    results: dict[str, dict[str, Any]],
    rejected: dict[str, dict[str, Any]],
    right: dict[str, Any],
) -> None:
    if faults and faults[-1] in FINAL:
        row = rejected[key]
        assert (row["_error_class"], row["_error_code"]) == FINAL[faults[-1]], key
        assert row["_error_message"], key
        assert row["_attempts"] == len(faults), key
    else:
        row = results[key]
        assert {name: row[name] for name in FIELDS} == right, key
        assert row["_attempts"] == len(faults) + 1, key
    assert row["id"] == key
    assert row["text"] == f"[[token=t{key[1:]}]] row {key[1:]}"


def _check_money(bench: Bench, simulator: Simulator, met: Counter[str]) -> None:
    attempts = bench.attempts()
    unknown = [attempt for attempt in attempts if attempt.state == "unknown"]
    assert len(unknown) == sum(met[name] for name in UNKNOWN)
    bill = simulator.bill.totals
    assert bill.requests == len(attempts)
    # `html` is an error page that nobody charges for, and nobody can know that
    assert bill.repeats <= len(unknown)
    settled = [attempt for attempt in attempts if attempt.state == "settled"]
    # a reply without usage counts at its worst case, as its true price is not known
    known = sum(attempt.cost for attempt in settled if attempt.cost_source == "computed")
    billed = sum(attempt.cost for attempt in settled)
    worst = billed + sum(attempt.reserved for attempt in unknown)
    assert known < bill.picodollars < worst
    per_row = sum(row["_cost_usd"] for row in (*bench.rows(RESULTS), *bench.rows(REJECTED)))
    assert int(per_row.scaleb(12)) == billed
    assert bench.contradictions() == []


@pytest.mark.behaviour("E-10")
def test_rows_stay_in_order_and_a_second_run_pays_nothing(
    bench: Bench, simulator: Simulator
) -> None:
    for key in bench.partitions():
        for asset in (RESULTS, REJECTED):
            positions = [row["_position"] for row in bench.rows(asset, [key])]
            assert positions == sorted(positions)
    before = simulator.bill.totals
    outcome = [(r["_row_key"], r["_error_code"]) for r in bench.rows(REJECTED)]
    bench.run()
    assert simulator.bill.totals == before
    assert [(r["_row_key"], r["_error_code"]) for r in bench.rows(REJECTED)] == outcome
