"""Rows that reach the provider: their answers, their errors, their money."""

from __future__ import annotations

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, question, questions


def test_every_row_has_its_answer_and_what_it_cost(harness: Harness, simulator: Simulator) -> None:
    run = harness.run(questions(30))
    assert run.texts == [str(n) for n in range(30)]
    totals = simulator.bill.totals
    assert totals.charged == 30
    assert sum(row.cost for row in run.rows) == totals.picodollars
    assert run.engine.progress.cost == totals.picodollars
    for row in run.rows:
        assert (row.outcome, row.attempts, row.cost_source) == (Outcome.ANSWERED, 1, "computed")
        assert row.model_served == "demo-model"
        assert row.latency_ms is not None
    assert harness.states() == {"settled": 30}
    assert harness.problems() == []


@pytest.mark.behaviour("B-1")
def test_a_second_run_asks_nothing_and_costs_nothing(
    harness: Harness, simulator: Simulator
) -> None:
    first = harness.run(questions(20))
    second = harness.run(questions(20))
    assert second.texts == first.texts
    assert simulator.bill.totals.requests == 20
    assert {(row.cost, row.attempts, row.cost_source) for row in second.rows} == {(0, 0, "reused")}
    assert second.engine.progress.reused == 20


def test_equal_rows_are_asked_once(harness: Harness, simulator: Simulator) -> None:
    rows = [question(f"[[token={n % 7}]]", f"row-{n}") for n in range(70)]
    run = harness.run(rows[:35], rows[35:])
    assert simulator.bill.totals.requests == 7
    assert [row.text for row in run.partition("p0")] == [str(n % 7) for n in range(35)]
    assert [row.text for row in run.partition("p1")] == [str(n % 7) for n in range(35)]
    assert sum(row.attempts for row in run.rows) == 7
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars


@pytest.mark.behaviour("E-12")
@pytest.mark.parametrize(
    ("fault", "code", "error_class"),
    [
        ("malformed_json", ErrorCode.REPLY_NOT_JSON, ErrorClass.ROW_RETRYABLE),
        ("empty_body", ErrorCode.REPLY_NOT_JSON, ErrorClass.ROW_RETRYABLE),
        ("html_200", ErrorCode.REPLY_NOT_JSON, ErrorClass.ROW_RETRYABLE),
        ("not_an_object", ErrorCode.REPLY_NOT_OBJECT, ErrorClass.ROW_RETRYABLE),
        ("nan_usage", ErrorCode.REPLY_NOT_FINITE, ErrorClass.ROW_RETRYABLE),
        ("error_in_200", ErrorCode.REPLY_HAS_ERROR, ErrorClass.ROW_RETRYABLE),
        ("missing_choices", ErrorCode.NO_CHOICES, ErrorClass.ROW_RETRYABLE),
        ("empty_choices", ErrorCode.NO_CHOICES, ErrorClass.ROW_RETRYABLE),
        ("missing_message", ErrorCode.NO_MESSAGE, ErrorClass.ROW_RETRYABLE),
        ("null_content", ErrorCode.CONTENT_NULL, ErrorClass.ROW_RETRYABLE),
        ("non_string_content", ErrorCode.CONTENT_NOT_TEXT, ErrorClass.ROW_RETRYABLE),
        ("blank_content", ErrorCode.CONTENT_BLANK, ErrorClass.ROW_RETRYABLE),
        ("length", ErrorCode.TRUNCATED, ErrorClass.ROW),
        ("refusal", ErrorCode.REFUSED, ErrorClass.ROW),
        ("content_filter", ErrorCode.CONTENT_FILTERED, ErrorClass.ROW),
        ("tool_calls", ErrorCode.TOOL_CALLS, ErrorClass.ROW_RETRYABLE),
        ("finish_error", ErrorCode.FINISH_ERROR, ErrorClass.ROW_RETRYABLE),
        ("finish_unknown", ErrorCode.FINISH_UNKNOWN, ErrorClass.ROW_RETRYABLE),
        ("context_length", ErrorCode.CONTEXT_LENGTH_EXCEEDED, ErrorClass.ROW),
        ("content_policy", ErrorCode.CONTENT_FILTERED, ErrorClass.ROW),
        ("413", ErrorCode.PAYLOAD_TOO_LARGE, ErrorClass.ROW),
    ],
)
def test_an_unusable_reply_is_an_error_of_its_row_and_is_not_paid_twice(
    harness: Harness, simulator: Simulator, fault: str, code: ErrorCode, error_class: ErrorClass
) -> None:
    rows = [question("[[token=good]]"), question(f"[[fault={fault}]] [[token=bad]]")]
    run = harness.run(rows)
    good, bad = run.rows
    assert (good.outcome, good.text) == (Outcome.ANSWERED, "good")
    assert (bad.outcome, bad.code, bad.error_class) == (Outcome.ERROR, code, error_class)
    assert bad.message
    again = harness.run(rows).rows[1]
    for name in ("outcome", "error_class", "code", "message", "text", "finish_reason", "usage"):
        assert getattr(again, name) == getattr(bad, name), name
    assert simulator.bill.totals.requests == 2
    assert harness.problems() == []


def test_a_cut_answer_is_asked_again_under_a_higher_ceiling_only(
    make_harness: MakeHarness, simulator: Simulator
) -> None:
    row = [question("[[fault=length times=1]] [[token=abcdefgh]]")]
    folder = "shared"
    first = make_harness(simulator.base_url, folder, max_tokens=10)
    assert first.run(row).rows[0].code is ErrorCode.TRUNCATED
    assert first.run(row).rows[0].code is ErrorCode.TRUNCATED
    assert simulator.bill.totals.requests == 1
    higher = make_harness(simulator.base_url, folder, max_tokens=11)
    assert higher.run(row).texts == ["abcdefgh"]
    assert first.run(row).texts == ["abcdefgh"]  # a finished answer serves any ceiling
    assert simulator.bill.totals.requests == 2


@pytest.mark.parametrize("fault", ["missing_usage", "negative_usage", "float_usage"])
def test_an_answer_without_usage_costs_its_worst_case(harness: Harness, fault: str) -> None:
    (row,) = harness.run([question(f"[[fault={fault}]] [[token=a]]")]).rows
    (attempt,) = harness.attempts()
    assert (row.outcome, row.cost_source) == (Outcome.ANSWERED, "estimated")
    assert row.cost == attempt.reserved == attempt.cost
    assert "usage_missing" in row.flags


def test_the_model_that_served_stands_on_the_row(harness: Harness) -> None:
    (row,) = harness.run([question("[[fault=other_model]] [[token=a]]")]).rows
    assert row.model_served == "demo-model-fallback"


@pytest.mark.behaviour("A-20")
def test_half_a_character_is_replaced_and_flagged(harness: Harness) -> None:
    rows = [question("[[fault=lone_surrogate]] [[token=half]]"), question("[[token=😀]]")]
    for run in (harness.run(rows), harness.run(rows)):  # from the wire, from the ledger
        assert run.texts == ["half\ufffd", "😀"]
        assert run.rows[0].flags == ("characters_replaced",)


@pytest.mark.behaviour("E-13")
@pytest.mark.behaviour("P-17")
def test_under_mixed_faults_every_answer_belongs_to_its_row(
    harness: Harness, simulator: Simulator, short_waits: None
) -> None:
    rates = {"429 retry_after=0": 0.05, "500": 0.05, "503": 0.03}
    rates |= {"reset_before": 0.03, "reset_after": 0.02, "truncated": 0.01, "malformed_json": 0.01}
    simulator.fail(FaultPlan(seed=7, rates=rates))
    rows = questions(1000)
    run = harness.run(rows[:400], rows[400:], concurrency=32)
    assert [chunk.partition for chunk in run.chunks if chunk.last] != []
    found = [*run.partition("p0"), *run.partition("p1")]
    assert len(found) == 1000
    for number, row in enumerate(found):
        if row.outcome is Outcome.ANSWERED:
            assert row.text == str(number)
        else:
            assert row.error_class is not None
            assert row.code is not None
    answered = sum(row.outcome is Outcome.ANSWERED for row in found)
    assert 950 < answered < 1000
    attempts = harness.attempts()
    assert len(attempts) == simulator.bill.totals.requests == sum(row.attempts for row in found)
    assert sum(row.cost for row in found) == sum(attempt.cost or 0 for attempt in attempts)
    unknown = [attempt for attempt in attempts if attempt.state == "unknown"]
    assert sum(row.unknown_cost for row in found) == sum(attempt.reserved for attempt in unknown)
    assert 0 < simulator.bill.totals.repeats <= len(unknown)
    assert harness.problems() == []
