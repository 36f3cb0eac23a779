"""What is left for a trace host when a request ends, and how long its trace lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Ask, Reservation, Settlement
from ondine_dagster.ledger.tracing import IF_IT_FAILS, TRACED, share, wanted
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.provider import Verdict
from ondine_dagster.observe import outbox
from ondine_dagster_tests.ledger.builders import (
    answered,
    execute,
    go,
    key,
    released,
    request,
    rows,
    unknown,
    value,
)
from ondine_dagster_tests.observe.pushing import InMemory, destination, push, states


def _refused(item: Reservation) -> Settlement:
    return replace(
        released(item), error_class=ErrorClass.CAPACITY, code=str(ErrorCode.RATE_LIMITED)
    )


def _cut(item: Reservation) -> Settlement:
    return answered(item, verdict=Verdict.TRUNCATED)


def _half(item: Reservation) -> Settlement:
    """Return the settlement of a pack of which one row got no answer."""
    whole = answered(item)
    return replace(whole, answers=whole.answers[:1])


@pytest.mark.parametrize("end", [_refused, _cut, _half, released, unknown])
def test_of_errors_only_a_good_request_never_stands_in_the_outbox(
    ledger: Ledger, end: Callable[[Reservation], Settlement]
) -> None:
    good, bad = (go(ledger, request(*names, trace_percent=0.0)) for names in ("ab", "cd"))
    ledger.settle(answered(good))
    assert rows(ledger.database, "SELECT * FROM outbox") == []
    ledger.settle(end(bad))
    assert rows(ledger.database, "SELECT attempt FROM outbox") == [(bad.attempt,)]
    assert states(ledger.database) == {outbox.WAITING: 1, outbox.LEFT_OUT: 1}
    memory = InMemory()
    assert push(ledger.database, destination(sample_percent=0.0), memory).exported == 1
    assert [one.error for one in memory.spans if one.calls] != [None]
    # what was left out is in the ledger: it can be sent later, whole
    assert outbox.queue_again(ledger.database, 0) == 2
    everything = InMemory()
    assert push(ledger.database, destination(), everything).exported == 2
    assert {one.span_id for one in memory.spans} < {one.span_id for one in everything.spans}


def test_a_share_chooses_the_same_rows_each_time_and_a_pack_for_one_of_them() -> None:
    keys = [f"r{number}" for number in range(1000)]
    chosen = [one for one in keys if wanted(20.0, "reviews", [one]) == TRACED]
    assert 150 < len(chosen) < 250
    assert chosen == [one for one in keys if share("reviews", one) < 20]
    assert set(chosen) < {one for one in keys if wanted(30.0, "reviews", [one]) == TRACED}
    others = [one for one in keys if one not in chosen][:5]
    assert wanted(20.0, "reviews", others) == IF_IT_FAILS
    assert wanted(20.0, "reviews", [*others, chosen[0]]) == TRACED


def test_the_share_is_that_of_each_row(ledger: Ledger) -> None:
    items = []
    for number in range(60):
        item = request(number, trace_percent=50.0)
        items.append(replace(item, asks=(Ask(key(number), f"r{number}"),)))
        ledger.settle(answered(go(ledger, items[-1])))
    chosen = [item.attempt for item in items if share("reviews", item.asks[0].row_key) < 50]
    assert rows(ledger.database, "SELECT attempt FROM outbox") == [(one,) for one in chosen]
    assert 0 < len(chosen) < 60


@pytest.mark.parametrize("percent", [100.0, 0.0])
def test_the_root_lasts_from_the_first_request_to_the_last(ledger: Ledger, percent: float) -> None:
    items = [go(ledger, request(name, trace_percent=percent)) for name in "abc"]
    for began, item in zip((5_000, 1_000, 3_000), items, strict=True):
        execute(ledger.database, "UPDATE attempts SET t_open = ? WHERE id = ?", began, item.attempt)
    ledger.settle_all([answered(item) for item in items[:2]])
    (first,) = rows(ledger.database, "SELECT started, ended FROM traces")
    assert first[0] == 1_000
    assert first[1] == value(ledger.database, "SELECT max(t_end) FROM attempts")
    memory = InMemory()
    push(ledger.database, destination(sample_percent=percent), memory)
    assert [(one.started, one.ended) for one in memory.spans if not one.parent_id] == [first]
    execute(ledger.database, "UPDATE traces SET ended = 2000")
    ledger.settle(answered(items[2]))
    (last,) = rows(ledger.database, "SELECT started, ended, exported FROM traces")
    assert last[0] == 1_000
    assert last[1] == value(ledger.database, "SELECT max(t_end) FROM attempts")
    assert last[2] == 0, "it is longer than when it was sent"
