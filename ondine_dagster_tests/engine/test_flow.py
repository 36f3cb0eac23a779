"""How rows flow: concurrency, order, the window, memory, what is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

import pytest

from ondine_dagster.engine.rows import Outcome, PartitionFeed, RowOutcome
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.openai_compatible import OpenAICompatible
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, Row, feeds, question, questions

BAD = RowOutcome(
    Outcome.ERROR,
    error_class=ErrorClass.ROW,
    code=ErrorCode.PROMPT_BLANK,
    message="every column of the prompt is blank: text",
)


# concurrency


@pytest.mark.behaviour("A-13")
@pytest.mark.behaviour("E-7")
@pytest.mark.parametrize("concurrency", [1, 2, 7, 32])
def test_the_concurrency_is_reached_exactly_and_never_exceeded(
    harness: Harness, simulator: Simulator, concurrency: int
) -> None:
    simulator.hold()
    reached: list[bool] = []

    def release_when_full() -> None:
        reached.append(simulator.bill.wait_for(lambda totals: totals.in_flight == concurrency))
        simulator.release()

    watcher = threading.Thread(target=release_when_full)
    watcher.start()
    # many small partitions: the tail of one must not idle the next
    parts = [questions(5, f"[[token=p{p}-" + "{n}]]") for p in range(4 * concurrency)]
    run = harness.run(*parts, concurrency=concurrency)
    watcher.join()
    totals = simulator.bill.totals
    assert reached == [True]
    assert totals.max_in_flight == concurrency
    assert totals.connections <= concurrency
    assert totals.answered == len(run.rows) == 20 * concurrency


@pytest.mark.behaviour("A-13")
def test_retries_do_not_exceed_the_concurrency_either(
    make_harness: MakeHarness, simulator_factory: type[Simulator], short_waits: None
) -> None:
    simulator = simulator_factory(latency_ms=3)
    harness = make_harness(simulator.base_url)
    rows = questions(200)
    rows[::4] = questions(50, "[[fault=500 times=2]] [[token=late-{n}]]")  # more were an outage
    run = harness.run(rows, concurrency=5)
    assert set(run.outcomes) == {Outcome.ANSWERED}
    assert simulator.bill.totals.requests == 150 + 3 * 50
    assert simulator.bill.totals.max_in_flight == 5


# order


@pytest.mark.behaviour("A-18")
@pytest.mark.behaviour("E-10")
def test_rows_come_in_order_though_answers_do_not(
    make_harness: MakeHarness, simulator_factory: type[Simulator]
) -> None:
    simulator = simulator_factory(jitter_ms=20)
    harness = make_harness(simulator.base_url)
    parts: list[list[Row]] = [
        [row if n % 10 else BAD for n, row in enumerate(questions(150, f"[[token={p}." + "{n}]]"))]
        for p in range(4)
    ]
    run = harness.run(*parts, concurrency=32, window_rows=100)
    for p in range(4):
        found = run.partition(f"p{p}")
        assert [row.text for row in found] == [f"{p}.{n}" if n % 10 else None for n in range(150)]
        assert found[0] is BAD
        ends = [chunk.last for chunk in run.chunks if chunk.partition == f"p{p}"]
        assert ends == [*([False] * (len(ends) - 1)), True]


def test_a_partition_is_closed_though_it_has_no_row_or_only_bad_ones(harness: Harness) -> None:
    run = harness.run([], [BAD] * 3, [], questions(2), [])
    assert sorted(chunk.partition for chunk in run.chunks if chunk.last) == [
        "p0",
        "p1",
        "p2",
        "p3",
        "p4",
    ]
    assert run.partition("p0") == []
    assert run.partition("p1") == [BAD] * 3
    assert len(run.partition("p3")) == 2


@pytest.mark.behaviour("E-2b")
def test_nothing_to_do_asks_nothing(harness: Harness, simulator: Simulator) -> None:
    assert harness.run().chunks == []
    assert [chunk.last for chunk in harness.run([]).chunks] == [True]
    assert simulator.bill.totals.requests == 0


# the window


class Meter:
    """Counts the rows that were handed in and not yet taken out."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    def move(self, rows: int) -> None:
        with self._lock:
            self.inside += rows
            self.most = max(self.most, self.inside)

    def feed(self, rows: Iterator[Row], batch_rows: int) -> Iterator[Sequence[Row]]:
        while batch := list(islice(rows, batch_rows)):
            self.move(len(batch))
            yield batch


@pytest.mark.behaviour("E-5")
@pytest.mark.behaviour("B-1d")
@pytest.mark.parametrize(
    ("window", "batch", "concurrency"),
    [(1, 1, 8), (1, 50, 8), (2, 3, 1), (3, 100, 4), (4, 4, 8), (50, 7, 4), (50, 300, 16)],
)
def test_no_more_rows_are_inside_than_the_window_and_one_batch(
    harness: Harness, window: int, batch: int, concurrency: int
) -> None:
    meter, found = Meter(), 0
    parts = (
        PartitionFeed(f"p{p}", meter.feed(iter(questions(61, f"[[token={p}-" + "{n}]]")), batch))
        for p in range(2)
    )
    for chunk in harness.engine(concurrency=concurrency, window_rows=window).run(parts):
        found += len(chunk.outcomes)
        meter.move(-len(chunk.outcomes))
    assert found == 122
    assert meter.inside == 0
    # the batch in hand was pulled from the feed, and the next one may be on its way
    assert meter.most <= window + 2 * batch


def test_the_feed_waits_for_a_slow_consumer(harness: Harness, simulator: Simulator) -> None:
    meter = Meter()
    parts = [PartitionFeed("p0", meter.feed(iter(questions(400)), 10))]
    with closing(harness.engine(window_rows=40).run(parts)) as chunks:
        taken = len(next(chunks).outcomes)
        # nothing more is taken out: what can be asked is asked, and then it stands still
        assert simulator.bill.wait_for(lambda totals: totals.answered >= 40)
        assert not simulator.bill.wait_for(lambda totals: totals.answered > 60, timeout=0.3)
        assert meter.most <= 60
        taken += sum(len(chunk.outcomes) for chunk in chunks)
    assert taken == 400


@pytest.mark.behaviour("E-5")
def test_memory_does_not_grow_with_the_number_of_rows(
    harness: Harness, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ten rows one asks, five have their answer in the ledger, four cannot be asked."""
    harness.run(questions(100, "[[token=old{n}]]"))
    peaks = {rows: _peak(harness, rows) for rows in (5_000, 50_000)}
    slope = (peaks[50_000] - peaks[5_000]) / 45_000
    with capsys.disabled():
        print(f"\nengine memory: {peaks[5_000]:,} B at 5k rows, {slope:.1f} B per further row")
    assert slope < 20  # a reference to each row's outcome would be more than 100
    assert simulator.bill.totals.requests == 100 + 10


def _peak(harness: Harness, rows: int) -> int:
    """Return the most memory in use while `rows` rows flow through a window of 2,000."""

    def mixed() -> Iterator[Row]:
        for n in range(rows):
            if n % 10 == 0:
                yield question(f"[[token=new{n % 100}]]", f"row-{n}")
            elif n % 10 < 6:
                yield question(f"[[token=old{n % 100}]]", f"row-{n}")
            else:
                yield RowOutcome(Outcome.ERROR, message=f"row {n} " + "x" * 200)

    tracemalloc.start()
    try:
        run = harness.engine(window_rows=2000).run(feeds(mixed(), batch_rows=1000))
        found = sum(len(chunk.outcomes) for chunk in run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == rows
    return peak


@pytest.mark.behaviour("E-5")
def test_tasks_grow_with_the_concurrency_and_not_with_the_rows(
    make_harness: MakeHarness, simulator_factory: type[Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = simulator_factory(latency_ms=5)
    harness = make_harness(simulator.base_url)
    most = 0
    body = OpenAICompatible.body

    def counting(self: OpenAICompatible, messages_json: str, ceiling: int) -> bytes:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        return body(self, messages_json, ceiling)

    monkeypatch.setattr(OpenAICompatible, "body", counting)
    run = harness.run(questions(1000), concurrency=50)
    assert set(run.outcomes) == {Outcome.ANSWERED}
    # two workers per permit, a task of aiohttp's per request in flight, and a few that run for all
    assert 2 * 50 < most <= 3 * 50 + 10


@pytest.mark.behaviour("E-8")
def test_a_run_leaves_no_thread_and_no_file_open(harness: Harness) -> None:
    harness.run(questions(20))  # whatever is opened once for the process
    before = _threads(), _files()
    for number in range(3):
        harness.run(questions(50, f"[[token={number}-" + "{n}]]"))
    assert _threads() == before[0]
    for _ in range(100):  # the server runs in this process, and hears of closed connections later
        if _files() <= before[1] + 1:
            break
        time.sleep(0.1)
    assert _files() <= before[1] + 1


def _threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name != "simulator"])


def _files() -> int:
    """Return the open files of this process that are no connection of the simulator."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
