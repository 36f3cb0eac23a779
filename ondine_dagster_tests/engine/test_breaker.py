"""The breaker on a fake clock: who asks a provider that is out, and who goes on when."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest

from ondine_dagster.engine.stop import INTERRUPTED
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Failure
from ondine_dagster_tests.engine.fake_time import fake_loop, run_in_fake_time
from ondine_dagster_tests.engine.traffic_bench import (
    KEY,
    Engine,
    break_it,
    close,
    failure,
    row,
    start,
)


@pytest.mark.behaviour("A-17")
def test_while_the_provider_is_out_one_probe_of_one_engine_goes_per_cooldown(
    ledgers: list[Ledger],
) -> None:
    async def main() -> None:
        engines = await start(*ledgers[:2])
        await break_it(engines[0])
        sent: list[float] = []

        async def ask(one: Engine) -> None:
            while await one.traffic.enter():
                sent.append(fake_loop().time())
                await asyncio.sleep(0.05)
                one.end(failure(ErrorCode.SERVER_ERROR))

        tasks = [asyncio.create_task(ask(one)) for one in engines for _ in range(20)]
        await asyncio.sleep(100.0)
        gaps = [after - before for before, after in pairwise(sent)]
        for gap, cooldown in zip(gaps, [2, 4, 8, 16, 30, 30], strict=True):
            assert cooldown <= gap <= cooldown + 1.0
        assert engines[1].progress.waiting_for is not None
        assert "the provider is down, next try in " in engines[1].progress.waiting_for
        for one in engines:
            one.stop.set(INTERRUPTED)
        await asyncio.gather(*tasks)
        await close(engines)

    run_in_fake_time(main())


@pytest.mark.behaviour("A-17")
@pytest.mark.parametrize(("failures", "held_back"), [(9, False), (10, True)])
def test_after_ten_failures_in_a_row_nothing_follows_before_the_ledger_has_heard_of_them(
    ledgers: list[Ledger], failures: int, held_back: bool
) -> None:
    """What is sent in between would be lost too, and nobody knows whether it is billed."""

    async def main() -> None:
        one, other = engines = await start(*ledgers[:2])
        failed = failure(ErrorCode.CONNECTION_LOST)
        await asyncio.gather(*(one.ask(failed) for _ in range(failures)))
        next_one = asyncio.create_task(one.ask())
        await asyncio.sleep(0.011)
        assert next_one.done() is not held_back
        assert not one.traffic.is_out
        await asyncio.sleep(0.7)
        assert other.traffic.is_out is one.traffic.is_out is held_back
        await asyncio.sleep(2)  # and the next one was the probe
        assert next_one.done()
        assert not one.traffic.is_out
        await close(engines)

    run_in_fake_time(main())


@pytest.mark.behaviour("A-17")
def test_a_good_probe_lets_everybody_go_on(ledgers: list[Ledger]) -> None:
    async def main() -> None:
        engines = await start(*ledgers[:2])
        await break_it(engines[0])
        tasks = [asyncio.create_task(one.ask()) for one in engines for _ in range(10)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in tasks)
        assert await asyncio.wait_for(asyncio.gather(*tasks), 5.0) == [True] * 20
        assert row(ledgers[0], "recent") is None
        await close(engines)

    run_in_fake_time(main())


@pytest.mark.behaviour("A-17")
def test_a_probe_whose_engine_is_gone_blocks_nobody(ledgers: list[Ledger]) -> None:
    async def main() -> None:
        dead, other = await start(*ledgers[:2])
        await break_it(dead)
        assert await dead.traffic.enter()  # and never heard of again
        assert await asyncio.wait_for(other.ask(), 5.0)
        await close([dead, other])

    run_in_fake_time(main())


def test_a_probe_that_needs_no_request_is_for_the_next_one(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await break_it(one)
        assert await one.traffic.enter()
        began = fake_loop().time()
        one.traffic.leave()  # the answer was in the ledger by then
        assert await one.ask()
        assert fake_loop().time() - began < 0.5
        await asyncio.sleep(0.5)
        assert row(ledger, "opened_at") is None
        await close([one])

    run_in_fake_time(main())


@pytest.mark.behaviour("A-17")
def test_refused_rows_and_bursts_of_refusals_open_no_breaker(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger, concurrency=64)
        for _ in range(64):
            assert await one.traffic.enter()
        sent = fake_loop().time()
        await asyncio.sleep(0.1)
        for _ in range(24):  # sent together
            one.traffic.failed(failure(ErrorCode.RATE_LIMITED), sent)
        for _ in range(40):  # refused as they are: the provider has answered
            one.traffic.answered(sent)
        await asyncio.sleep(1.0)
        assert row(ledger, "opened_at") is None
        assert row(ledger, "ceiling") == 36
        await close([one])

    run_in_fake_time(main())


def test_an_outage_for_longer_than_declared_stops_the_run_and_says_why(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger, max_outage_seconds=30.0)
        await one.ask()
        began = fake_loop().time()
        while await one.ask(failure(ErrorCode.SERVER_ERROR)):
            pass
        assert 30.0 <= fake_loop().time() - began <= 60.0
        reason = one.stop.reason
        assert reason is not None
        assert (reason.error_class, reason.code) == (ErrorClass.TRANSIENT, ErrorCode.BREAKER_OPEN)
        assert re.fullmatch(
            rf"{KEY.endpoint} \(m\) has been down since 08:00:00 UTC: 1\d of the last 1\d requests "
            r"failed, the last one: the reason: server_error\. The next run asks the rest",
            reason.message,
        )
        await close([one])

    run_in_fake_time(main())


def test_an_answer_in_the_middle_of_an_outage_begins_it_anew(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger, max_outage_seconds=20.0)
        for _ in range(3):
            await break_it(one)
            await asyncio.sleep(10.0)
            assert await one.ask()
            await asyncio.sleep(0.5)
        assert one.stop.reason is None
        await close([one])

    run_in_fake_time(main())


@pytest.mark.behaviour("A-15")
def test_who_does_not_wait_for_a_provider_that_is_out_stops_before_the_first_request(
    ledgers: list[Ledger],
) -> None:
    async def main() -> None:
        (one,) = await start(ledgers[0])
        await break_it(one, failure(ErrorCode.SERVER_ERROR, 60.0))
        began = fake_loop().time()
        (other,) = await start(ledgers[1], max_outage_seconds=0.0)
        assert not await other.traffic.enter()
        assert fake_loop().time() - began < 1.0
        assert other.stop.reason is not None
        assert other.stop.reason.code is ErrorCode.BREAKER_OPEN
        assert "not seen here" in other.stop.reason.message
        await close([one, other])

    run_in_fake_time(main())


@pytest.mark.parametrize("max_outage_seconds", [0.0, 600.0])
def test_the_next_run_after_an_outage_tries_again(
    ledger: Ledger, max_outage_seconds: float
) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await break_it(one)
        await close([one])
        await asyncio.sleep(86_400.0)
        (again,) = await start(ledger, max_outage_seconds=max_outage_seconds)
        assert await asyncio.wait_for(again.ask(), 1.0)
        await asyncio.sleep(1.0)
        assert again.stop.reason is None
        assert row(ledger, "opened_at") is None
        await close([again])

    run_in_fake_time(main())


def test_an_address_that_nobody_answers_at_is_not_waited_for(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        began = fake_loop().time()
        refused = failure(ErrorCode.CONNECT_FAILED)
        while await one.ask(refused):
            pass
        assert one.stop.reason == refused
        assert fake_loop().time() - began < 15.0
        await close([one])

    run_in_fake_time(main())


def test_an_address_that_has_answered_is_waited_for(ledger: Ledger) -> None:
    async def main() -> None:
        (one,) = await start(ledger)
        await one.ask(failure(ErrorCode.SERVER_ERROR))
        asking = asyncio.create_task(_ask_until_stopped(one, failure(ErrorCode.CONNECT_FAILED)))
        await asyncio.sleep(120.0)
        assert one.stop.reason is None
        one.stop.set(INTERRUPTED)
        await asking
        await close([one])

    run_in_fake_time(main())


async def _ask_until_stopped(one: Engine, failed: Failure) -> None:
    while await one.ask(failed):
        pass
