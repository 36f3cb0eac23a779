"""Pacing on a fake clock: order, slots that come back, caps of the day, interrupts and trouble."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.stop import INTERRUPTED, StopSign
from ondine_dagster.ledger.database import LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rates import Lease, Rates
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster_tests.engine.fake_time import (
    COMMIT_SECONDS,
    START,
    fake_loop,
    run_in_fake_time,
)
from ondine_dagster_tests.engine.pacers import KEY, TEN_A_SECOND, make_pacer
from ondine_dagster_tests.ledger.builders import value

ONE_A_MINUTE = Rates(requests_per_minute=1)


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function: Callable[..., Lease]) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *args: Any) -> Lease:
        self.calls += 1
        return self._function(*args)


def test_a_slot_is_leased_for_many_requests_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Rates(requests_per_minute=60_000)

    async def main() -> float:
        pacer = make_pacer(ledger, rates)
        monkeypatch.setattr(pacer, "_take", counted := Counted(pacer._take))
        await asyncio.gather(*(pacer.slot(1) for _ in range(2000)))
        assert counted.calls <= 8
        return fake_loop().time()

    # a quarter of a second may be caught up with at the start
    assert 1.74 <= run_in_fake_time(main()) <= 1.85


def test_the_first_to_come_is_the_first_to_go(ledger: Ledger) -> None:
    async def main() -> list[int]:
        pacer = make_pacer(ledger, TEN_A_SECOND)
        gone: list[int] = []

        async def ask(number: int) -> None:
            await pacer.slot(1)
            gone.append(number)

        await asyncio.gather(*map(ask, range(30)))
        return gone

    assert run_in_fake_time(main()) == list(range(30))


def test_without_rates_nothing_waits_and_nothing_is_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, Rates())
        monkeypatch.setattr(pacer, "_take", counted := Counted(pacer._take))
        for _ in range(100):
            assert await pacer.slot(10**9) is None
            pacer.correct(5)
            pacer.give_back(10**9)
        await pacer.aclose()
        assert fake_loop().time() == 0
        assert counted.calls == 0

    run_in_fake_time(main())
    assert value(ledger.database, "SELECT count(*) FROM provider_state") == 0


# given back


def test_a_slot_that_was_given_back_goes_to_the_next(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, ONE_A_MINUTE)
        assert await pacer.slot(1) is None
        second = asyncio.ensure_future(pacer.slot(1))
        await asyncio.sleep(5)
        assert not second.done()
        pacer.give_back(1)
        assert await second is None
        assert fake_loop().time() == pytest.approx(5 + COMMIT_SECONDS)

    run_in_fake_time(main())


def test_a_slot_that_was_given_back_serves_one_only_and_not_for_long(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, ONE_A_MINUTE)
        await pacer.slot(1)
        pacer.give_back(1)
        await asyncio.sleep(0.3)
        await pacer.slot(1)  # at once: nobody had needed it before
        assert fake_loop().time() < 1
        pacer.give_back(1)
        await asyncio.sleep(0.7)
        await pacer.slot(1)
        assert fake_loop().time() >= 59

    run_in_fake_time(main())


def test_a_slot_that_was_given_back_counts_with_the_tokens_of_who_uses_it(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, Rates(tokens_per_day=1000))
        assert await pacer.slot(100) is None
        pacer.give_back(100)
        assert await pacer.slot(700) is None
        assert await pacer.slot(301)
        await pacer.aclose()

    run_in_fake_time(main())
    assert value(ledger.database, "SELECT day_tokens FROM provider_state") == 700


def test_who_is_cancelled_while_waiting_takes_no_slot(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, ONE_A_MINUTE)
        await pacer.slot(1)
        waiting = [asyncio.ensure_future(pacer.slot(1)) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        waiting[1].cancel()
        assert await waiting[2] is None
        assert 59 <= fake_loop().time() <= 61

    run_in_fake_time(main())


def test_instants_of_a_clock_that_was_set_back_hold_nobody(ledger: Ledger) -> None:
    async def main() -> float:
        make_pacer(ledger, TEN_A_SECOND)
        clock, back = fake_loop().microseconds, 0
        pacer = Pacer(
            ledger, KEY, TEN_A_SECOND, StopSign(), Progress(), clock=lambda: clock() - back
        )
        asking = [asyncio.ensure_future(pacer.slot(1)) for _ in range(40)]
        await asyncio.sleep(1)
        back = 600 * 1_000_000
        await asyncio.gather(*asking)
        await pacer.aclose()
        return fake_loop().time()

    assert run_in_fake_time(main()) <= 5


# caps of the day


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize("wait", [0.3, 0.7])
def test_slots_that_are_given_back_again_and_again_use_no_day_up(
    ledger: Ledger, wait: float
) -> None:
    """A request that waits for money takes a slot at every look."""
    rates = Rates(requests_per_minute=600, requests_per_day=5)

    async def main() -> None:
        pacer = make_pacer(ledger, rates)
        for _ in range(20):
            assert await pacer.slot(1) is None
            pacer.give_back(1)
            await asyncio.sleep(wait)
        await pacer.aclose()

    run_in_fake_time(main())
    assert value(ledger.database, "SELECT day_requests FROM provider_state") == 0


@pytest.mark.behaviour("B-5")
def test_a_used_up_day_ends_every_wait_and_says_when_it_renews(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[Failure | None]:
        pacer = make_pacer(ledger, Rates(requests_per_minute=20, requests_per_day=3))
        ends = await asyncio.gather(*(pacer.slot(1) for _ in range(10)))
        monkeypatch.setattr(pacer, "_take", counted := Counted(pacer._take))
        assert await pacer.slot(1) == ends[-1]
        assert counted.calls == 0
        assert fake_loop().time() <= 2 * 3 + 1  # not minutes for those that get nothing
        return ends

    ends = run_in_fake_time(main())
    assert ends[:3] == [None] * 3
    (failure,) = set(ends[3:])
    assert failure is not None
    assert failure.error_class is ErrorClass.CAPACITY
    assert failure.code is ErrorCode.RATE_LIMITED_DAILY
    assert failure.evidence is Evidence.NOT_SENT
    assert not failure.retryable
    assert "limits.requests_per_day: 3 of 3 requests of 2027-01-15 (UTC)" in failure.message
    assert "00:00 UTC" in failure.message


@pytest.mark.behaviour("B-5")
def test_who_has_a_slot_of_a_day_that_is_used_up_keeps_it(ledger: Ledger) -> None:
    async def main() -> int:
        stop = StopSign()
        rates = Rates(requests_per_minute=600, requests_per_day=7)
        pacer = make_pacer(ledger, rates, stop)

        async def is_sent() -> bool:
            if (capped := await pacer.slot(1)) is not None:
                stop.set(capped)
                return False
            return pacer.ended_the_day or not stop.is_set()

        sent = await asyncio.gather(*(is_sent() for _ in range(20)))
        await pacer.aclose()
        return sent.count(True)

    assert run_in_fake_time(main()) == 7
    assert value(ledger.database, "SELECT day_requests FROM provider_state") == 7


@pytest.mark.behaviour("B-5")
def test_requests_go_again_on_the_next_day(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, Rates(requests_per_day=2))
        assert await pacer.slot(1) is None
        assert await pacer.slot(1) is None
        assert await pacer.slot(1)
        await asyncio.sleep(86_400 - START % 86_400 - 1)
        assert await pacer.slot(1)
        await asyncio.sleep(1)
        assert await pacer.slot(1) is None

    run_in_fake_time(main())


@pytest.mark.behaviour("B-5")
def test_a_day_is_shared_by_all_processes_and_by_later_ones(ledgers: list[Ledger]) -> None:
    rates = Rates(requests_per_day=100)

    async def main() -> int:
        pacers = [make_pacer(ledger, rates) for ledger in ledgers]
        ends = await asyncio.gather(*(pacers[n % 4].slot(1) for n in range(200)))
        assert await make_pacer(ledgers[0], rates).slot(1)
        return ends.count(None)

    assert run_in_fake_time(main()) == 100


def test_what_was_really_used_is_left_to_the_next_run(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, Rates(tokens_per_day=1000))
        assert await pacer.slot(900) is None
        pacer.correct(-850)
        await pacer.aclose()
        assert await make_pacer(ledger, Rates(tokens_per_day=1000)).slot(900) is None

    run_in_fake_time(main())


# interrupts and trouble


def test_the_stop_sign_ends_every_wait_at_once(ledger: Ledger) -> None:
    async def main() -> None:
        stop = StopSign()
        pacer = make_pacer(ledger, ONE_A_MINUTE, stop)
        assert await pacer.slot(1) is None
        waiting = [asyncio.ensure_future(pacer.slot(1)) for _ in range(50)]
        await asyncio.sleep(1)
        assert not any(one.done() for one in waiting)
        stop.set(INTERRUPTED)
        assert await asyncio.gather(*waiting) == [None] * 50
        assert await pacer.slot(1) is None
        assert fake_loop().time() == pytest.approx(1 + COMMIT_SECONDS)
        await pacer.aclose()

    run_in_fake_time(main())


def test_the_stop_sign_does_not_wait_for_the_ledger(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real loop: the lease stands in its worker thread, before a ledger that is locked."""
    locked, asked = threading.Event(), threading.Event()

    async def main() -> None:
        stop = StopSign()
        pacer = Pacer(ledger, KEY, TEN_A_SECOND, stop, Progress())

        def stand(*_: object) -> Lease:
            asked.set()
            assert locked.wait(60)
            return Lease(())

        monkeypatch.setattr(pacer, "_take", stand)
        waiting = [asyncio.ensure_future(pacer.slot(1)) for _ in range(3)]
        assert await asyncio.to_thread(asked.wait, 60)
        stop.set(INTERRUPTED)
        assert await asyncio.gather(*waiting) == [None] * 3
        assert not locked.is_set()
        locked.set()
        await pacer.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_slow_ledger_delays_and_starves_nobody(ledger: Ledger) -> None:
    async def main() -> float:
        fake_loop().commit_seconds = 2
        pacer = make_pacer(ledger, TEN_A_SECOND)
        await asyncio.gather(*(pacer.slot(1) for _ in range(20)))
        return fake_loop().time()

    assert run_in_fake_time(main()) <= 10


def test_a_ledger_that_cannot_be_written_is_told_to_all_who_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, TEN_A_SECOND)

        def fail(*_: object) -> Lease:
            raise LedgerUnavailable("The ledger cannot be written: disk full.")

        with monkeypatch.context() as broken:
            broken.setattr(pacer, "_take", fail)
            ends = await asyncio.gather(*(pacer.slot(1) for _ in range(5)), return_exceptions=True)
        assert [type(end) for end in ends] == [LedgerUnavailable] * 5
        assert await pacer.slot(1) is None  # and once it can be written again, they go

    run_in_fake_time(main())


def test_closing_ends_waits_and_leaves_no_task(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = make_pacer(ledger, ONE_A_MINUTE)
        await pacer.slot(1)
        waiting = [asyncio.ensure_future(pacer.slot(1)) for _ in range(5)]
        await asyncio.sleep(COMMIT_SECONDS / 2)  # in the middle of a lease
        await pacer.aclose()
        assert await asyncio.gather(*waiting) == [None] * 5
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_fake_time(main())


def test_real_time_and_real_threads(ledger: Ledger) -> None:
    async def main() -> None:
        pacer = Pacer(ledger, KEY, Rates(requests_per_minute=60_000), StopSign(), Progress())
        assert await asyncio.gather(*(pacer.slot(1) for _ in range(300))) == [None] * 300
        await pacer.aclose()

    asyncio.run(main())
    assert value(ledger.database, "SELECT day_requests FROM provider_state") >= 300
