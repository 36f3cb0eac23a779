"""Traffic on a fake clock: what it costs while all is well, the pause, and how it stops."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from ondine_dagster.engine.stop import INTERRUPTED
from ondine_dagster.engine.traffic import TICK_SECONDS, Traffic
from ondine_dagster.ledger.database import Database, LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster_tests.engine.fake_time import fake_loop, run_in_fake_time
from ondine_dagster_tests.engine.traffic_bench import (
    break_it,
    close,
    failure,
    row,
    start,
)
from ondine_dagster_tests.ledger.builders import execute, value


class Calls:
    """Counts what a ledger's file is asked for."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = self.writes = 0
        read, write = database.read, database.write

        def counted_read() -> Any:
            self.reads += 1
            return read()

        def counted_write() -> Any:
            self.writes += 1
            return write()

        monkeypatch.setattr(database, "read", counted_read)
        monkeypatch.setattr(database, "write", counted_write)


def test_while_all_is_well_a_permit_costs_no_wait_and_nothing_is_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enters_at_once(traffic: Traffic) -> bool:
        try:
            traffic.enter().send(None)
        except StopIteration as end:
            return bool(end.value)
        return False

    async def main() -> None:
        (one,) = await start(ledger)
        calls = Calls(ledger.database, monkeypatch)
        for _ in range(100_000):
            assert enters_at_once(one.traffic)
            one.end()
        assert (calls.reads, calls.writes) == (0, 0)
        await asyncio.sleep(10.0)
        assert calls.writes == 0
        assert 10 <= calls.reads <= 20  # others may have changed something
        assert one.progress.waiting_for is None
        await close([one])

    run_in_fake_time(main())


def test_no_more_than_the_concurrency_is_in_flight(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger, concurrency=3)
        tasks = [asyncio.create_task(one.traffic.enter()) for _ in range(5)]
        await asyncio.sleep(1.0)
        assert sum(task.done() for task in tasks) == 3
        one.end()
        await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) == 4
        one.stop.set(INTERRUPTED)
        assert [await task for task in tasks] == [True] * 4 + [False]
        await close([one])

    run_in_fake_time(main())


# the pause


def test_an_overloaded_provider_that_says_for_how_long_holds_everybody(
    ledgers: list[Ledger],
) -> None:
    async def main() -> None:
        one, other = engines = await start(*ledgers[:2])
        began = fake_loop().time()
        await one.ask(failure(ErrorCode.OVERLOADED, 20.0))
        await asyncio.sleep(1.0)
        waiting_for = other.progress.waiting_for or ""
        assert re.fullmatch(r"paused for (19|20|21) s, as the provider asked", waiting_for)
        assert await asyncio.gather(one.ask(), other.ask()) == [True, True]
        assert 20.0 <= fake_loop().time() - began <= 20.0 * 1.2
        await asyncio.sleep(2 * TICK_SECONDS)
        assert other.progress.waiting_for is None
        await close(engines)

    run_in_fake_time(main())


@pytest.mark.parametrize("code", [ErrorCode.OVERLOADED, ErrorCode.SERVER_ERROR])
def test_a_failure_that_asks_for_no_wait_pauses_nobody(ledger: Ledger, code: ErrorCode) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await one.ask(failure(code))
        await asyncio.sleep(1.0)
        assert not one.traffic._permits.closed
        await close([one])

    run_in_fake_time(main())


def test_a_used_up_window_holds_everybody_for_two_minutes_at_most(ledgers: list[Ledger]) -> None:
    async def main() -> None:
        one, other = engines = await start(*ledgers[:2])
        began = fake_loop().time()
        one.traffic.pause(86_400.0)
        await asyncio.sleep(1.0)
        assert await other.ask()
        assert 120.0 <= fake_loop().time() - began <= 120.0 * 1.1 + 2.0
        await close(engines)

    run_in_fake_time(main())


@pytest.mark.behaviour("A-28")
def test_the_seconds_of_a_pause_are_counted(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await asyncio.sleep(1.0)
        one.traffic.pause(10.0)
        await asyncio.sleep(60.0)
        assert await one.ask()
        assert 10.0 <= one.progress.paused_seconds <= 10.0 * 1.1 + 2.0
        await close([one])

    run_in_fake_time(main())


def test_a_pause_of_a_clock_that_was_set_back_is_short(ledger: Ledger) -> None:
    async def main() -> None:
        (first,) = await start(ledger)
        with ledger.database.write() as connection:
            connection.exec_driver_sql("UPDATE provider_state SET paused_until = 4000000000000")
        await close([first])
        (one,) = await start(ledger)
        assert await one.ask()
        assert fake_loop().time() <= 120.0 * 1.1 + 2.0
        await close([one])

    run_in_fake_time(main())


# stopping


@pytest.mark.parametrize("held_up", ["taken", "paused", "out"])
def test_an_interrupt_ends_every_wait_at_once(ledger: Ledger, held_up: str) -> None:
    async def main() -> None:
        (one,) = await start(ledger, concurrency=1)
        if held_up == "taken":
            assert await one.traffic.enter()
        elif held_up == "paused":
            one.traffic.pause(60.0)
        else:
            await break_it(one, failure(ErrorCode.SERVER_ERROR, 60.0))
        waiting = [asyncio.create_task(one.traffic.enter()) for _ in range(10)]
        await asyncio.sleep(1.0)
        one.stop.set(INTERRUPTED)
        began = fake_loop().time()
        assert await asyncio.gather(*waiting) == [False] * 10
        assert fake_loop().time() - began < 0.1
        assert not await one.traffic.enter()
        await close([one])

    run_in_fake_time(main())


def test_a_bound_that_was_violated_stops_those_who_were_there_and_nobody_later(
    ledgers: list[Ledger],
) -> None:
    async def main() -> None:
        one, other = await start(*ledgers[:2])
        await asyncio.sleep(1.0)
        one.traffic.violated()
        await asyncio.sleep(1.0)
        for each in (one, other):
            assert each.stop.reason is not None
            assert each.stop.reason.code is ErrorCode.BOUND_VIOLATED
        await close([one, other])
        (later,) = await start(ledgers[2])
        await asyncio.sleep(1.0)
        assert await later.ask()
        await close([later])

    run_in_fake_time(main())


def test_a_violation_that_lies_ahead_of_a_clock_set_back_stops_nobody(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await close([one])
        ahead = fake_loop().microseconds() // 1000 + 3_600_000
        execute(ledger.database, "UPDATE provider_state SET violated_at = ?", ahead)
        (later,) = await start(ledger)
        await asyncio.sleep(1.0)
        assert await later.ask()
        later.traffic.violated()  # and it is heard of where that happens again
        await asyncio.sleep(1.0)
        assert later.stop.is_set()
        await close([later])

    run_in_fake_time(main())


def test_what_was_seen_last_is_reported_and_the_engine_is_off_the_list(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        one.traffic.violated()
        await close([one])
        assert row(ledger, "violated_at") is not None
        assert value(ledger.database, "SELECT count(*) FROM provider_users") == 0

    run_in_fake_time(main())


def test_a_ledger_that_fails_is_noticed_by_those_who_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise LedgerUnavailable("the disk is full")

    async def main() -> None:
        (one,) = await start(ledger, concurrency=1)
        assert await one.traffic.enter()
        waiting = asyncio.create_task(one.traffic.enter())
        with monkeypatch.context() as patch:
            patch.setattr(ledger.database, "read", broken)
            with pytest.raises(LedgerUnavailable, match="disk is full"):
                await waiting
            with pytest.raises(LedgerUnavailable, match="disk is full"):
                await one.traffic.enter()
            with pytest.raises(LedgerUnavailable, match="disk is full"):
                await one.traffic.aclose()

    run_in_fake_time(main())
