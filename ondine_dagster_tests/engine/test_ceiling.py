"""The shared ceiling on a fake clock, against a server that takes so many requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from ondine_dagster.engine.stop import INTERRUPTED
from ondine_dagster.ledger import provider_state
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import ProviderKey
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster_tests.engine.fake_time import fake_loop, run_in_fake_time
from ondine_dagster_tests.engine.traffic_bench import (
    Engine,
    close,
    failure,
    row,
    start,
)

LATENCY = 1.0


@dataclass
class Server:
    """Refuses at once what is more than its capacity."""

    capacity: int
    retry_after: float | None = None
    in_flight: int = 0
    good: int = 0
    refused: int = 0
    random: Random = field(default_factory=lambda: Random(7))

    async def answer(self) -> Failure | None:
        if self.in_flight >= self.capacity:
            self.refused += 1
            await asyncio.sleep(0.02)
            return failure(ErrorCode.RATE_LIMITED, self.retry_after)
        self.in_flight += 1
        await asyncio.sleep(LATENCY * self.random.uniform(0.8, 1.2))
        self.in_flight -= 1
        self.good += 1
        return None

    async def ask_for_ever(self, one: Engine) -> None:
        while await one.traffic.enter():
            started = fake_loop().time()
            failed = await self.answer()
            if failed is None:
                one.traffic.answered(started)
            else:
                one.traffic.failed(failed, started)
            await asyncio.sleep(0.005)  # the settlement
            one.traffic.leave()
            if failed is not None:
                wait = failed.retry_after or 0.4
                await asyncio.sleep(wait * self.random.uniform(1.0, 1.1))


async def load(
    server: Server,
    ledgers: Sequence[Ledger],
    script: Callable[[list[Engine]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ask with 256 requests at once in all while `script` goes on."""
    engines = await start(*ledgers, concurrency=256 // len(ledgers))
    held = {
        ledger.process: one.traffic._permits for ledger, one in zip(ledgers, engines, strict=True)
    }

    def elsewhere(connection: object, key: ProviderKey, process: bytes) -> int:
        return sum(permits.held for other, permits in held.items() if other != process)

    # the server keeps no ledger; that the ledger counts right is tested there
    monkeypatch.setattr(provider_state, "in_flight_elsewhere", elsewhere)
    clients = [asyncio.create_task(server.ask_for_ever(one)) for one in engines for _ in range(300)]
    await script(engines)
    for one in engines:
        assert one.stop.reason is None
        one.stop.set(INTERRUPTED)
    await asyncio.gather(*clients)
    await close(engines)


@pytest.mark.parametrize("processes", [1, 4])
def test_a_server_that_takes_forty_at_once_is_kept_busy(
    ledgers: list[Ledger], monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    server = Server(40, retry_after=1.0)

    async def script(engines: list[Engine]) -> None:
        await asyncio.sleep(10)
        first = server.good, server.refused
        assert first[1] < 256 + 40  # the first burst, and hardly one more
        await asyncio.sleep(20)
        # in 20 s forty at once answer 800
        assert server.good - first[0] >= 0.9 * 40 * 20 / LATENCY
        assert server.refused == first[1]
        limits = [one.traffic._permits.limit for one in engines]
        assert max(limits) - min(limits) <= 1
        assert row(ledgers[0], "opened_at") is None

    run_in_fake_time(load(server, ledgers[:processes], script, monkeypatch))


def test_a_server_that_takes_less_and_more_again_is_followed_within_a_minute(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(40)

    async def good_in_five_seconds() -> int:
        before = server.good
        await asyncio.sleep(5)
        return server.good - before

    async def script(engines: list[Engine]) -> None:
        await asyncio.sleep(10)
        server.capacity = 10
        await asyncio.sleep(10)
        refused = server.refused
        assert await good_in_five_seconds() >= 0.8 * 5 * 10 / LATENCY
        assert server.refused - refused <= 2
        await asyncio.sleep(15)
        server.capacity = 40
        await asyncio.sleep(60)
        assert await good_in_five_seconds() >= 0.8 * 5 * 40 / LATENCY

    run_in_fake_time(load(server, [ledger], script, monkeypatch))


@dataclass
class Moody(Server):
    """Refuses some requests by chance, however few are in flight."""

    share: float = 0.0

    async def answer(self) -> Failure | None:
        if self.random.random() >= self.share:
            return await super().answer()
        self.refused += 1
        await asyncio.sleep(0.02)
        return failure(ErrorCode.RATE_LIMITED)


def test_refusals_by_chance_slow_down_only_the_rows_that_meet_them(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Moody(1000, share=0.03)

    async def script(engines: list[Engine]) -> None:
        await asyncio.sleep(20)
        assert server.refused > 100
        assert server.good >= 0.9 * 256 * 20 / LATENCY

    run_in_fake_time(load(server, [ledger], script, monkeypatch))


def test_a_ceiling_is_split_and_what_a_leaver_had_is_for_the_others(
    ledgers: list[Ledger],
) -> None:
    async def main() -> None:
        engines = await start(*ledgers[:3], concurrency=16)
        first = engines[0]
        for _ in range(16):
            assert await first.traffic.enter()
        for _ in range(5):
            first.traffic.failed(failure(ErrorCode.RATE_LIMITED), fake_loop().time())
        assert first.traffic._permits.limit == 16  # a few may be chance
        first.traffic.failed(failure(ErrorCode.RATE_LIMITED), fake_loop().time())
        assert first.traffic._permits.limit == 12  # at once, before anybody knows
        await asyncio.sleep(1.0)
        assert row(ledgers[0], "ceiling") == 12
        assert [one.traffic._permits.limit for one in engines] == [4, 4, 4]
        for _ in range(16):
            first.traffic.leave()
        await first.traffic.aclose()
        await asyncio.sleep(1.0)
        assert [one.traffic._permits.limit for one in engines[1:]] == [6, 6]
        await close(engines[1:])

    run_in_fake_time(main())
