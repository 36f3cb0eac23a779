"""The one retry layer: what is asked again, how often, after how long, and what is not."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tenacity import AsyncRetrying, RetryCallState

from ondine_dagster.engine import asking, retry
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, question, questions
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the waits instead of waiting."""
    waited: list[float] = []

    async def sleep(self: StopSign, seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(StopSign, "sleep", sleep)
    return waited


def failure(
    retry_after: float | None = None,
    code: ErrorCode = ErrorCode.RATE_LIMITED,
    error_class: ErrorClass = ErrorClass.CAPACITY,
) -> Failure:
    return Failure(error_class, code, "slow down", Evidence.REFUSED, retry_after)


def wait_after(attempt: int, retry_after: float | None = None) -> float:
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_result(failure(retry_after))
    return retry.wait_seconds(state)


@pytest.mark.behaviour("P-10")
@pytest.mark.behaviour("P-19")
@pytest.mark.parametrize("told", [None, 0.0])
def test_the_wait_grows_to_a_longest_one_and_has_jitter(told: float | None) -> None:
    for attempt, longest in [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (50, 30)]:
        drawn = [wait_after(attempt, told) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in drawn)
        assert len(set(drawn)) > 1


@pytest.mark.behaviour("P-10")
def test_a_wait_that_the_provider_names_is_kept_with_a_little_jitter() -> None:
    drawn = [wait_after(1, 7.0) for _ in range(50)]
    assert all(7.0 <= wait <= 7.7 for wait in drawn)
    assert len(set(drawn)) > 1


@pytest.mark.behaviour("P-10")
@pytest.mark.behaviour("P-19")
@pytest.mark.parametrize(
    ("attempt", "told", "between"),
    [
        (1, None, (0.25, 0.5)),
        (1, 0.0, (0.25, 0.5)),
        (4, None, (2, 4)),
        (5000, None, (15, 30)),  # and no overflow
        (1, 0.05, (0.05, 0.055)),
        (4, 100.0, (100, 110)),  # as told, however often it failed
    ],
)
def test_the_wait_is_drawn_from_one_interval(
    monkeypatch: pytest.MonkeyPatch,
    attempt: int,
    told: float | None,
    between: tuple[float, float],
) -> None:
    for edge, expected in enumerate(between):
        monkeypatch.setattr(retry.random, "uniform", lambda *ends, edge=edge: ends[edge])
        assert wait_after(attempt, told) == pytest.approx(expected)


NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@pytest.mark.behaviour("P-10")
@pytest.mark.parametrize("told", [None, 0.0, 1.5, 120.0])
def test_a_wait_that_a_run_can_sleep_defers_nothing(told: float | None) -> None:
    assert retry.deferred(failure(told)) is None
    assert retry.may_repeat(failure(told))


@pytest.mark.behaviour("P-10")
@pytest.mark.parametrize(
    ("told", "when"),
    [
        (121.0, "in 3 min (2026-11-20 12:02 UTC)"),
        (3600.0, "in 1 h 0 min (2026-11-20 13:00 UTC)"),
        (43_000.0, "in 11 h 57 min (2026-11-20 23:56 UTC)"),
        (1e300, "in more than 10 years"),
    ],
)
def test_a_longer_wait_stops_the_run_and_says_when_to_come_back(told: float, when: str) -> None:
    stop = retry.deferred(failure(told), NOW)
    assert stop is not None
    assert stop.code is ErrorCode.RATE_LIMITED_DAILY
    assert stop.error_class is ErrorClass.CAPACITY
    assert when in stop.message
    assert stop.message.startswith("slow down. ")
    assert stop.retry_after == told
    assert not retry.may_repeat(failure(told))


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        (ErrorCode.OVERLOADED, ErrorClass.CAPACITY),
        (ErrorCode.SERVER_ERROR, ErrorClass.TRANSIENT),
    ],
)
def test_an_outage_of_hours_keeps_its_name(code: ErrorCode, error_class: ErrorClass) -> None:
    stop = retry.deferred(failure(7200.0, code, error_class), NOW)
    assert stop is not None
    assert (stop.code, stop.error_class) == (code, error_class)
    assert "in 2 h 0 min (2026-11-20 14:00 UTC)" in stop.message


def test_what_stops_a_run_without_a_wait_is_handed_through() -> None:
    daily = failure(code=ErrorCode.RATE_LIMITED_DAILY)
    assert retry.deferred(daily) is daily
    assert not retry.may_repeat(daily)
    # what nobody repeats is nothing to defer, whatever it asks for
    assert retry.deferred(failure(7200.0, error_class=ErrorClass.CONFIG)) is None


@pytest.mark.behaviour("P-10")
def test_retry_after_of_the_server_is_what_the_row_waits(
    harness: Harness, waits: list[float]
) -> None:
    rows = [
        question("[[fault=429 times=1 retry_after=3]] [[token=a]]"),
        question("[[fault=503 times=1 retry_after_ms=800]] [[token=b]]"),
        question('[[fault=429 times=1 retry_after="Fri, 20 Nov 2020 12:00:00 GMT"]] [[token=c]]'),
        question("[[fault=429 times=1 retry_after=soon]] [[token=d]]"),
    ]
    assert harness.run(rows, concurrency=1).texts == ["a", "b", "c", "d"]
    named = sorted(waits)
    assert 0.8 <= named[2] <= 0.88
    assert 3 <= named[3] <= 3.3
    assert all(0.25 <= wait <= 0.5 for wait in named[:2])


@pytest.mark.behaviour("P-10")
@pytest.mark.parametrize("status", ["429", "503"])
def test_a_provider_that_is_out_for_an_hour_stops_the_run(
    harness: Harness, simulator: Simulator, waits: list[float], status: str
) -> None:
    rows = [question(f"[[fault={status} retry_after=3600]]"), *questions(50)]
    run = harness.run(rows, concurrency=1)
    assert set(run.outcomes) == {Outcome.NOT_ATTEMPTED}
    assert run.engine.stopped is not None
    assert run.engine.stopped.retry_after == 3600
    assert simulator.bill.totals.requests == 1
    assert waits == []


RETRYABLE = [
    *("408", "409", "424", "429", "498", "499", "500", "502", "503", "504", "524", "529", "599"),
    *("402 retry_after=0", "429 retry_after=0", "429 code=slow_down", "html", "reset_after"),
]


@pytest.mark.behaviour("P-21")
@pytest.mark.parametrize("fault", RETRYABLE)
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_no_row_is_sent_more_often_than_declared(
    make_harness: MakeHarness,
    simulator: Simulator,
    waits: list[float],
    fault: str,
    max_attempts: int,
) -> None:
    harness = make_harness(simulator.base_url)
    harness.max_unknown = 100
    rows = questions(3, "[[fault=" + fault + "]] {n}")
    run = harness.run(rows, max_attempts=max_attempts)
    assert simulator.bill.totals.requests == 3 * max_attempts
    assert {line.requests for line in simulator.bill.snapshot().prompts.values()} == {max_attempts}
    assert {row.attempts for row in run.rows} == {max_attempts}
    assert set(run.outcomes) == {Outcome.ERROR}
    assert len(waits) == 3 * (max_attempts - 1)


@pytest.mark.behaviour("P-21")
@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "half_close", "truncated"])
def test_unknown_outcomes_are_asked_again_within_their_bound_over_all_runs(
    harness: Harness,
    simulator: Simulator,
    waits: list[float],
    short_cooldowns: None,
    fault: str,
) -> None:
    rows = questions(5, "[[fault=" + fault + "]] {n}")
    first = harness.run(rows, max_attempts=10)
    assert set(first.outcomes) == {Outcome.HELD}
    assert {row.code for row in first.rows} == {ErrorCode.UNKNOWN_HELD}
    assert {row.attempts for row in first.rows} == {3}  # one, and max_unknown = 2 again
    assert all(row.unknown_cost > 0 for row in first.rows)
    assert set(harness.run(rows, max_attempts=10).outcomes) == {Outcome.HELD}
    assert simulator.bill.totals.requests == 15
    assert simulator.bill.totals.repeats <= 15
    assert harness.states() == {"unknown": 15}
    assert harness.problems() == []


@pytest.mark.behaviour("P-12")
def test_a_stalled_request_is_unknown_and_charged_as_an_estimate(
    harness: Harness, waits: list[float]
) -> None:
    rows = [question("[[fault=stall times=1]] [[token=a]]")]
    run = harness.run(rows, timeout_seconds=0.3)
    (row,) = run.rows
    assert (row.text, row.attempts) == ("a", 2)
    assert harness.states() == {"unknown": 1, "settled": 1}
    assert row.unknown_cost == next(a.reserved for a in harness.attempts() if a.state == "unknown")
    assert run.engine.progress.unknown_cost == row.unknown_cost


NOT_RETRYABLE = [
    *("400", "401", "402", "403", "404", "405", "412", "413", "418", "422", "451", "501"),
    *("context_length", "content_policy", "insufficient_quota", "429 code=insufficient_quota"),
    *("400 code=OperationNotSupported", "400 code=json_validate_failed"),
    *("error_in_200", "finish_error", "malformed_json", "empty_body", "missing_choices"),
    *("null_content", "length", "content_filter", "refusal", "tool_calls", "finish_unknown"),
]


@pytest.mark.behaviour("A-16")
@pytest.mark.behaviour("E-12")
@pytest.mark.behaviour("P-21")
@pytest.mark.parametrize("fault", NOT_RETRYABLE)
def test_what_cannot_get_better_is_sent_once(
    harness: Harness, simulator: Simulator, waits: list[float], fault: str
) -> None:
    rows = [question("good"), question(f"[[fault={fault}]] bad")]
    run = harness.run(rows, concurrency=1, max_attempts=5)
    assert simulator.bill.totals.requests == 2
    assert run.outcomes[0] is Outcome.ANSWERED
    assert run.outcomes[1] in (Outcome.ERROR, Outcome.NOT_ATTEMPTED)
    assert waits == []


# stopping


@pytest.mark.behaviour("P-9")
@pytest.mark.behaviour("P-11")
@pytest.mark.parametrize("fault", ["401", "403", "404", "402", "insufficient_quota", "405"])
def test_a_fatal_reply_stops_after_the_requests_in_flight(
    harness: Harness, simulator: Simulator, fault: str
) -> None:
    paid = questions(20, "[[token=paid{n}]]")
    harness.run(paid)
    simulator.reset()
    simulator.fail(FaultPlan(rates={fault: 1.0}))
    new = questions(200, "[[token=new{n}]]")
    mixed = [row for pair in zip(new[:20], paid, strict=True) for row in pair]
    run = harness.run(mixed, new[20:], concurrency=4)
    assert simulator.bill.totals.requests <= 4
    # what was paid before is used all the same; the rest waits for the next run
    assert [row.text for row in run.partition("p0")][1::2] == [f"paid{n}" for n in range(20)]
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 20, Outcome.NOT_ATTEMPTED: 200}
    assert run.engine.stopped is not None
    assert not run.engine.stopped.retryable
    assert harness.problems() == []
    simulator.fail(FaultPlan())
    assert set(harness.run(mixed, new[20:]).outcomes) == {Outcome.ANSWERED}


def test_a_dead_server_stops_the_run_and_costs_nothing(
    make_harness: MakeHarness, waits: list[float], short_cooldowns: None
) -> None:
    with RawServer(lambda peer: None) as server:
        base_url = f"http://{server.address}/v1"
    harness = make_harness(base_url)
    run = harness.run(questions(100), concurrency=4, max_attempts=3)
    assert set(run.outcomes) == {Outcome.NOT_ATTEMPTED}
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.CONNECT_FAILED
    assert run.engine.progress.requests <= 8 * 3
    assert harness.states().keys() == {"released"}


@pytest.mark.behaviour("P-11")
def test_a_declaration_that_is_refused_stops_before_many_rows(
    harness: Harness, simulator: Simulator
) -> None:
    run = harness.run(questions(500, "[[fault=400]] {n}"), concurrency=4)
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.BAD_REQUEST
    assert simulator.bill.totals.requests <= 3 * 4
    assert Counter(run.outcomes)[Outcome.NOT_ATTEMPTED] >= 488


def test_poison_rows_do_not_stop_a_run_that_has_answers(
    harness: Harness, simulator: Simulator
) -> None:
    poison = questions(10, "[[fault=400]] {n}")
    run = harness.run([*questions(2), *poison, *questions(20)], concurrency=2)
    assert run.engine.stopped is None
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 22, Outcome.ERROR: 10}
    # nor one whose answers are old
    assert harness.run([*questions(2), *poison], concurrency=2).engine.stopped is None


def test_poison_rows_wait_for_the_answers_that_are_on_their_way(
    make_harness: MakeHarness,
) -> None:
    """Refusals come at once, answers take their time: the first are not yet a verdict."""
    refused: list[bytes] = []
    enough = threading.Event()

    def behave(peer: Peer) -> None:
        while True:
            if b"poison" in (request := peer.request()):
                peer.send(reply(b'{"error":{"message":"no"}}', status="400 Bad Request"))
                refused.append(request)
                if len(refused) >= 5:
                    enough.set()
            else:
                enough.wait()
                peer.send(reply(b'{"choices":[{"message":{"content":"fine"}}]}'))

    with RawServer(behave) as server:
        harness = make_harness(f"http://{server.address}/v1")
        rows = [question("slow"), *questions(8, "poison {n}"), question("last")]
        run = harness.run(rows, concurrency=2)
    assert run.engine.stopped is None
    assert Counter(run.outcomes) == {Outcome.ANSWERED: 2, Outcome.ERROR: 8}


def test_a_row_that_backs_off_gives_its_permit_to_another(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing_off = threading.Event()

    async def sleep(self: StopSign, seconds: float) -> None:
        backing_off.set()
        while simulator.bill.totals.answered < 20:  # woken by nothing but the others' answers
            await asyncio.sleep(0.001)

    monkeypatch.setattr(StopSign, "sleep", sleep)
    rows = [question("[[fault=429 times=1]] [[token=first]]"), *questions(20)]
    run = harness.run(rows, concurrency=1)
    assert backing_off.is_set()
    assert run.texts == ["first", *(str(n) for n in range(20))]
    assert simulator.bill.totals.max_in_flight == 1


def test_a_question_that_somebody_else_asks_keeps_its_attempts(
    harness: Harness, simulator: Simulator, waits: list[float]
) -> None:
    """Failed once, then taken over, then free again: what it has used up is not forgotten."""
    answers: Iterator[str] = iter(["go", "taken", "go", "go"])
    original = asking.Asker._attempt

    async def attempt(self: asking.Asker, pack: asking.Pack) -> object:
        if next(answers, "go") != "taken":
            return await original(self, pack)
        pack.leave()
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking.Asker, "_attempt", attempt)
        run = harness.run([question("[[fault=500]] x")], max_attempts=3)
    assert simulator.bill.totals.requests == 3
    assert run.rows[0].attempts == 3
