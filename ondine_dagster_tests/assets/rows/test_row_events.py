"""A rejected row says what happened to it: the last events, bounded; good rows carry none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ondine_dagster.assets.rows.row_events import event_rows, events_of, life_of
from ondine_dagster.engine.job import LONGEST_MESSAGE, MOST_EVENTS, Job
from ondine_dagster.engine.rows import Outcome, RowEvent, RowOutcome
from ondine_dagster_tests.engine.harness import question
from ondine_dagster_tests.workbench import REJECTED, RESPONSES, RESULTS, MakeBench, numbered

_LABELS = {"fields": {"label": {"type": "string", "enum": ["good", "bad"]}}}


def happened(row: dict[str, Any]) -> list[tuple[str, int, str | None]]:
    return [(one["event"], one["attempt"], one["code"]) for one in row["_events"]]


@pytest.mark.behaviour("A-26")
def test_a_rejected_row_tells_what_happened_also_after_it_was_parsed_again(
    make_bench: MakeBench,
) -> None:
    began = datetime.now(UTC)
    rows = numbered(3, "[[answer=good]] row {n}")
    rows[1]["text"] = "[[fault=429 times=2 retry_after=0]]"  # and then a blank answer
    rows[2]["text"] = "[[fault=400]]"
    bench = make_bench(rows)
    bench.snapshot()
    bench.run(raise_on_error=False)
    first, *_ = bench.rows(RESPONSES)
    assert first["events"] is None
    found = {row["id"]: row for row in bench.rows(REJECTED)}
    assert happened(found["r1"]) == [
        ("failed", 1, "rate_limited"),
        ("failed", 2, "rate_limited"),
        ("no_use", 3, "content_blank"),
    ]
    times = [one["at"] for one in found["r1"]["_events"]]
    assert times == sorted(times)
    assert began - timedelta(seconds=1) <= times[0] <= datetime.now(UTC)
    assert happened(found["r2"])[-1][2] == "bad_request"
    bench.run(assets=(RESULTS, REJECTED), raise_on_error=False)
    assert {row["id"]: row["_events"] for row in bench.rows(REJECTED)} == {
        key: row["_events"] for key, row in found.items()
    }


def test_an_answer_that_nobody_can_read_is_the_last_event(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2, "[[fault=wrong_schema]] row {n}"), output=_LABELS)
    bench.snapshot()
    bench.run()
    rows = bench.rows(REJECTED)
    assert [happened(row) for row in rows] == [[("answered", 1, None)]] * 2
    assert [row["_events"][0]["latency_ms"] for row in rows] == [row["_latency_ms"] for row in rows]
    paid = [row["_events"][0]["at"] for row in rows]
    bench.run()  # from the ledger
    again = bench.rows(REJECTED)
    assert [happened(row) for row in again] == [[("answered_before", 0, None)]] * 2
    assert [row["_events"][0]["at"] <= at for row, at in zip(again, paid, strict=True)] == [
        True
    ] * 2


@pytest.mark.behaviour("A-26")
def test_events_of_a_row_are_bounded_in_number_and_size() -> None:
    job = Job(question("a"), "p0")
    for number in range(3 * MOST_EVENTS):
        job.attempts = number + 1
        job.note("failed", "timeout", "x" * 10_000)
    assert job.events is not None
    assert [one.attempt for one in job.events] == [*range(2 * MOST_EVENTS + 1, 3 * MOST_EVENTS + 1)]
    assert {len(one.message or "") for one in job.events} == {LONGEST_MESSAGE}
    sample = RowOutcome(outcome=Outcome.ERROR, events=tuple(job.events))
    three = RowOutcome(outcome=Outcome.ERROR, samples=(sample, sample, sample))
    assert len(life_of(three)) == MOST_EVENTS


def test_a_column_gives_back_what_was_put_into_it() -> None:
    events = (RowEvent(1_700_000_000_123, "failed", 2, "timeout", "late", 5),)
    assert events_of(event_rows(events)) == events
    assert event_rows(()) is None
    assert events_of(None) == ()
