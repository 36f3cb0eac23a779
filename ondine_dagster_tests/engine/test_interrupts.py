"""Stopping in the middle, by the consumer, and by our own bugs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from ondine_dagster.engine.asking import Asker
from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question
from ondine_dagster.engine.runner import Runner
from ondine_dagster.engine.sending import Sender
from ondine_dagster.engine.stop import INTERRUPTED, StopSign
from ondine_dagster.ledger.database import Database
from ondine_dagster.llm.openai_compatible import OpenAICompatible
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.background import Background
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, feeds, question, questions
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply


class Boom(Exception):
    """A bug of ours."""


# the consumer leaves


@pytest.mark.behaviour("A-30")
def test_closing_early_lets_what_is_in_flight_end_and_keeps_it(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(500)
    run = harness.engine(concurrency=4, window_rows=40).run(feeds(rows))
    next(run)
    run.close()
    totals = simulator.bill.totals
    assert 0 < totals.requests < 500
    assert totals.in_flight == 0
    states = harness.states()
    assert states.pop("settled") == totals.answered
    assert states.keys() <= {"released"}  # reserved just then, and not sent any more
    assert harness.run(rows).texts == [str(n) for n in range(500)]
    assert simulator.bill.totals.requests == 500
    assert simulator.bill.totals.repeats == 0
    assert harness.problems() == []


def test_an_exception_in_the_consumer_comes_through_and_ends_the_run(
    harness: Harness, simulator: Simulator
) -> None:
    with (
        pytest.raises(Boom),
        closing(harness.engine(window_rows=40).run(feeds(questions(500)))) as run,
    ):
        for _ in run:
            raise Boom
    assert simulator.bill.totals.requests < 500
    assert harness.states().keys() <= {"settled", "released"}
    assert "engine" not in {thread.name for thread in threading.enumerate()}


def test_leaving_before_the_loop_has_started_ends_the_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a signal arrives in the first millisecond: there is no loop yet to tell."""
    engine = harness.engine()

    def interrupted() -> Chunk:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_next", interrupted)
    blocked = threading.Event()
    started = engine._main

    async def late(parts: Any) -> None:
        while not engine._closing:
            await asyncio.sleep(0.001)
        blocked.set()
        await started(parts)

    monkeypatch.setattr(engine, "_main", late)
    with pytest.raises(KeyboardInterrupt):
        next(engine.run(feeds(questions(10_000))))
    assert blocked.is_set()
    assert engine.stopped is INTERRUPTED


def test_a_run_that_nobody_started_leaves_nothing(harness: Harness) -> None:
    harness.engine().run(feeds(questions(5))).close()
    assert harness.attempts() == []


@pytest.mark.behaviour("A-30")
def test_requests_that_outlast_the_drain_are_unknown(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.hold()
    rows = questions(100)
    background = Background(harness.engine(concurrency=4, drain_seconds=0.05), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 4)
    background.interrupt()
    background.join()
    assert harness.states() == {"unknown": 4}
    assert simulator.bill.totals.requests == 4
    simulator.release()
    assert harness.run(rows).texts == [str(n) for n in range(100)]
    totals = simulator.bill.totals
    assert totals.charged == 104
    assert totals.repeats == 4
    assert harness.states() == {"unknown": 4, "settled": 100}
    assert harness.problems() == []


@pytest.mark.behaviour("A-30")
def test_answers_that_arrive_while_draining_are_kept(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.hold()
    rows = questions(100)
    background = Background(harness.engine(concurrency=4, drain_seconds=30), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 4)
    background.interrupt()
    simulator.release()
    background.join()
    assert harness.states() == {"settled": 4}
    assert simulator.bill.totals.requests == 4


def test_an_interrupt_ends_every_back_off_at_once(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = threading.Semaphore(0)
    slept: list[float] = []
    original = StopSign.sleep

    async def sleep(self: StopSign, seconds: float) -> None:
        asleep.release()
        await original(self, seconds)
        slept.append(seconds)

    monkeypatch.setattr(StopSign, "sleep", sleep)
    rows = questions(6, "[[fault=429 retry_after=100]] {n}")
    background = Background(harness.engine(concurrency=8), rows)
    for _ in range(6):
        assert asleep.acquire(timeout=10)
    background.interrupt()
    background.join()  # far sooner than the 100 s that each of them meant to sleep
    assert len(slept) == 6
    assert simulator.bill.totals.requests == 6
    assert {row.outcome for chunk in background.chunks for row in chunk.outcomes} <= {
        Outcome.NOT_ATTEMPTED
    }
    assert background.error is None


# questions that somebody else is asking


def test_a_question_that_another_run_asks_is_waited_for_and_not_asked(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(20)
    simulator.hold()
    first = Background(harness.engine(concurrency=20), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 20)
    second = Background(harness.engine(concurrency=20), rows)
    simulator.release()
    first.join()
    second.join()
    texts = [str(n) for n in range(20)]
    for run in (first, second):
        assert [row.text for chunk in run.chunks for row in chunk.outcomes] == texts
    assert simulator.bill.totals.requests == 20


def test_a_run_that_waits_for_another_can_be_interrupted(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(3)
    simulator.hold()
    first = Background(harness.engine(), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 3)
    second = Background(harness.engine(), rows)
    second.interrupt()
    second.join()
    simulator.release()
    first.join()
    assert [row.text for chunk in first.chunks for row in chunk.outcomes] == ["0", "1", "2"]


def test_a_stopped_run_does_not_wait_for_another(
    make_harness: MakeHarness, simulator: Simulator
) -> None:
    rows = questions(3)
    simulator.hold()
    first = Background(make_harness(simulator.base_url).engine(), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 3)

    def refuse(peer: Peer) -> None:
        peer.request()
        peer.send(reply(b'{"error":{"message":"no"}}', status="401 Unauthorized"))

    with RawServer(refuse) as server:
        second = make_harness(f"http://{server.address}/v1").run(rows, questions(1, "new {n}"))
    assert set(second.outcomes) == {Outcome.NOT_ATTEMPTED}
    simulator.release()
    first.join()
    assert [row.text for chunk in first.chunks for row in chunk.outcomes] == ["0", "1", "2"]


# bugs of ours


def failing(error: Exception, after: int = 0) -> Any:
    """Return a method that fails from its `after`-th call on."""
    calls = iter(range(after))

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise error
        return method.original(self, *args, **kwargs)  # type: ignore[attr-defined]

    return method


def patch_failing(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: int, error: Exception
) -> None:
    method = failing(error, after)
    method.original = getattr(owner, name)
    monkeypatch.setattr(owner, name, method)


@pytest.mark.behaviour("E-6")
@pytest.mark.behaviour("E-6b")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (OpenAICompatible, "body"),
        (OpenAICompatible, "parse"),
        (OpenAICompatible, "prompt_tokens_bound"),
        (Asker, "_send"),
        (Sender, "_exchange"),
        (Runner, "_end"),
        (Runner, "_place"),
        (Runner, "_flush"),
        (Runner, "_queue"),
    ],
)
@pytest.mark.parametrize("after", [0, 20])
def test_a_bug_surfaces_with_its_type_and_finished_rows_are_kept(
    harness: Harness,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    after: int,
) -> None:
    rows = questions(120)
    with monkeypatch.context() as patch:
        patch_failing(patch, owner, name, after, Boom("in the middle"))
        with pytest.raises(Boom, match="in the middle"):
            harness.run(rows, concurrency=4, drain_seconds=10)
    asked = simulator.bill.totals.requests
    assert asked < 120
    states = harness.states()
    assert "open" not in states  # or a later run of this process would wait for ever
    assert states.get("settled", 0) + states.get("unknown", 0) >= asked
    assert harness.run(rows).texts == [str(n) for n in range(120)]
    assert simulator.bill.totals.repeats <= states.get("unknown", 0)
    assert harness.problems() == []


def test_a_bug_in_the_poll_of_taken_questions_surfaces(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = questions(3)
    simulator.hold()
    first = Background(harness.engine(), rows)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 3)
    monkeypatch.setattr(harness.ledger, "key_states", failing(Boom("poll")).__get__(harness.ledger))
    second = Background(harness.engine(), rows)
    second.join()
    assert isinstance(second.error, Boom)
    simulator.release()
    first.join()
    assert first.error is None


@pytest.mark.behaviour("E-6")
@pytest.mark.parametrize("error", [Boom("feed"), KeyError("feed"), SystemExit(3)])
@pytest.mark.parametrize("where", ["partitions", "batches"])
def test_an_error_of_the_feed_surfaces_with_its_type(
    harness: Harness, simulator: Simulator, error: BaseException, where: str
) -> None:
    def batches() -> Iterator[Sequence[Question]]:
        yield questions(10)
        if where == "batches":
            raise error

    def parts() -> Iterator[PartitionFeed]:
        yield PartitionFeed("p0", batches())
        raise error

    with pytest.raises(type(error)) as caught:
        list(harness.engine().run(parts()))
    assert caught.value is error
    assert "open" not in harness.states()


@pytest.mark.behaviour("E-6b")
@pytest.mark.parametrize("after", [0, 5])
def test_a_ledger_that_cannot_write_ends_the_run_with_its_error(
    harness: Harness, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    rows = questions(300)
    with monkeypatch.context() as patch:
        broken = OperationalError("COMMIT", {}, Exception("disk I/O error"))
        patch_failing(patch, Database, "write", after, broken)
        with pytest.raises(OperationalError, match="disk I/O error"):
            harness.run(rows, concurrency=4, drain_seconds=5)
    assert simulator.bill.totals.requests < 300
    assert harness.problems() == []
    assert "engine" not in {thread.name for thread in threading.enumerate()}


def test_what_a_broken_ledger_could_not_settle_is_unknown_when_the_process_ends(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, simulator.base_url)
    row = [question("[[token=a]]")]
    with monkeypatch.context() as patch:
        broken = OperationalError("COMMIT", {}, Exception("disk full"))
        simulator.hold()
        background = Background(harness.engine(), row)
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 1)
        patch_failing(patch, Database, "write", 0, broken)
        simulator.release()
        background.join()
    assert isinstance(background.error, OperationalError)
    assert harness.states() == {"open": 1}
    harness.close()
    with closing(Harness(tmp_path, simulator.base_url)) as again:
        assert again.states() == {"unknown": 1}
        assert again.run(row).texts == ["a"]
    assert simulator.bill.totals.charged == 2
