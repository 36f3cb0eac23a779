"""The writer thread: groups, doubtful commits, and nobody who waits for ever."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import writer
from ondine_dagster.ledger.database import Database, LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Decision
from ondine_dagster.ledger.writer import Result, Writer, wait_for
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    answered,
    ask_and_answer,
    counter,
    go,
    key,
    request,
    rows,
    state,
    unknown,
    value,
)

Broken = Callable[[Database, Callable[[], None]], None]


@contextmanager
def faulty(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int, str], None]) -> Iterator[None]:
    """Call `fault` with the number of each transaction, before and after its commit."""
    original = Database.write
    count = 0

    @contextmanager
    def write(self: Database) -> Iterator[Connection]:
        nonlocal count
        count += 1
        mine = count
        with original(self) as connection:
            yield connection
            fault(mine, "before")
        fault(mine, "after")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", write)
        yield


@contextmanager
def held(ledger: Ledger) -> Iterator[None]:
    """Keep the writer thread from committing, so that what is submitted meanwhile is one group."""
    with ledger.database.write():
        yield


def commits(ledger: Ledger, do: Callable[[], None]) -> int:
    """Count the write transactions of `do`."""
    seen: list[str] = []
    with ledger.database.write() as connection:
        driver = connection.connection.driver_connection
        driver.set_trace_callback(seen.append)  # type: ignore[union-attr]
    do()
    driver.set_trace_callback(None)  # type: ignore[union-attr]
    return sum(statement.startswith("BEGIN") for statement in seen)


def test_many_concurrent_requests_share_few_commits(ledger: Ledger) -> None:
    items = [request(number) for number in range(400)]
    made = commits(ledger, lambda: _in_threads(items, lambda item: go(ledger, item)))
    assert made < 100
    assert counter(ledger.database) == (0, 400 * WORST)
    made = commits(ledger, lambda: ledger.settle_all([answered(item) for item in items]))
    assert 2 <= made <= 10  # groups of at most 200


def _in_threads(items: list, do: Callable[..., object]) -> None:  # type: ignore[type-arg]
    start = threading.Barrier(50)

    def work(mine: list) -> None:  # type: ignore[type-arg]
        start.wait()
        for item in mine:
            do(item)

    threads = [threading.Thread(target=work, args=(items[n::50],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Gated(Writer):
    """Writes nothing, and ends each group only when it is let."""

    def __init__(self) -> None:
        self.reached, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        super().__init__(cast(Any, None), b"", cast(Any, None))

    def _write(self, group: list[Any]) -> None:
        self.reached.release()
        self.gate.acquire()


def test_a_group_ends_however_little_of_its_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SimpleQueue.get` of CPython may wait for ever where its timeout is microseconds."""
    gated, item = Gated(), request("q")
    for turn in range(3000):
        monkeypatch.setattr(writer, "GROUP_SECONDS", 1e-6 * (0.2 + turn % 50 / 20))
        gated.submit(item, lambda result: None)
        assert gated.reached.acquire(timeout=10)
        gated.submit(item, lambda result: None)  # while the writer is busy
        gated.gate.release()
        assert gated.reached.acquire(timeout=10), "the writer waits for more than its group"
        gated.gate.release()
    gated.close()


def test_nobody_hears_of_an_item_before_it_is_committed(ledger: Ledger) -> None:
    heard: queue.SimpleQueue[Result] = queue.SimpleQueue()
    with held(ledger):
        ledger.submit(request("q"), heard.put)
        with pytest.raises(queue.Empty):
            heard.get(timeout=0.02)  # the group is closed after 2 ms
    assert heard.get() is not None
    assert value(ledger.database, "SELECT count(*) FROM attempts") == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_in_doubt_is_counted_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Rule 10: the connection breaks just before or just after the commit happened."""

    def break_once(number: int, when: str) -> None:
        if (number, when) == (1, moment):
            raise LedgerUnavailable("disk I/O error")

    with faulty(monkeypatch, break_once):
        item = go(ledger, request("q"))
    assert counter(ledger.database) == (0, WORST)
    assert counter(ledger.database, "requests") == (0, 1)
    with faulty(monkeypatch, break_once):
        ledger.settle(answered(item))
    assert counter(ledger.database) == (COST, 0)
    assert value(ledger.database, "SELECT count(*) FROM answers") == 1
    assert value(ledger.database, "SELECT count(*) FROM outbox") == 1


def test_a_store_that_stays_broken_is_reported_to_all_and_left_consistent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_always(number: int, when: str) -> None:
        raise LedgerUnavailable("disk I/O error")

    good = go(ledger, request("good"))
    with faulty(monkeypatch, break_always), pytest.raises(LedgerUnavailable):
        wait_for(ledger.submit, [request("a"), answered(good), request("b")])
    assert state(ledger, good) == "open"
    assert counter(ledger.database) == (0, WORST)
    ledger.settle(answered(good))  # the thread is alive


def test_one_broken_item_does_not_take_the_paid_answers_of_its_group_along(
    ledger: Ledger,
) -> None:
    items = [go(ledger, request(number)) for number in range(5)]
    broken = replace(answered(items[2]), remote_id="\ud83d")  # no database can store that
    with pytest.raises(UnicodeEncodeError):
        ledger.settle_all([*(answered(item) for item in items[:2]), broken, answered(items[3])])
    assert [state(ledger, item) for item in items] == [
        "settled",
        "settled",
        "open",
        "settled",
        "open",
    ]
    ledger.settle_all([unknown(items[2]), unknown(items[4])])


def test_a_listener_with_a_bug_does_not_end_the_thread(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(result: Result) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        ledger.submit(request("a"), listen)
        go(ledger, request("b"))
    assert "listener" in caplog.text
    assert rows(ledger.database, "SELECT count(*) FROM attempts") == [(2,)]


def test_what_is_queued_at_the_end_is_written_and_what_comes_later_is_refused(
    path: Path,
) -> None:
    ledger = Ledger(path)
    items = [go(ledger, request(number)) for number in range(300)]
    heard: queue.SimpleQueue[Result] = queue.SimpleQueue()
    for item in items:
        ledger.submit(answered(item), heard.put)
    ledger.close()
    assert [heard.get_nowait() for _ in items] == [None] * 300
    with pytest.raises(OndineError, match="closed"):
        ledger.reserve(request("late"))
    again = Ledger(path)
    assert len(again.look_up([key(number) for number in range(300)], 100)) == 300
    again.close()


def test_what_is_queued_behind_the_end_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path)
    writing, go_on = threading.Event(), threading.Event()
    heard: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def wait(number: int, when: str) -> None:
        writing.set()
        go_on.wait()

    with faulty(monkeypatch, wait):
        ledger.submit(request("first"), heard.put)
        writing.wait()
        closing = threading.Thread(target=ledger._writer.close)
        closing.start()
        while ledger._writer._queue.empty():  # until the end is queued
            pass
        ledger.submit(request("behind"), heard.put)
        go_on.set()
        closing.join()
    assert [type(heard.get(timeout=10)) for _ in range(2)] == [Decision, OndineError]
    ledger.close()


def test_callers_that_race_with_the_end_all_hear_something(path: Path) -> None:
    ledger = Ledger(path)
    heard: queue.SimpleQueue[Result] = queue.SimpleQueue()
    started = threading.Barrier(9)

    def submit(first: int) -> None:
        started.wait()
        for number in range(first, first + 100):
            ledger.submit(request(number), heard.put)

    threads = [threading.Thread(target=submit, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    ledger.close()
    for thread in threads:
        thread.join()
    assert len([heard.get(timeout=10) for _ in range(800)]) == 800


def test_settlements_of_a_group_come_before_its_reservations(ledger: Ledger) -> None:
    """Whoever looks again finds the answer that arrives with him."""
    item = go(ledger, request("q"))
    found: queue.SimpleQueue[Result] = queue.SimpleQueue()
    with held(ledger):
        ledger.submit(request("q"), found.put)
        ledger.submit(answered(item), lambda result: None)
    decision = found.get()
    assert not isinstance(decision, BaseException)
    assert decision is not None
    assert decision.hits


def test_waiting_for_nothing_returns_at_once(ledger: Ledger) -> None:
    ledger.settle_all([])
    ask_and_answer(ledger, "q")
