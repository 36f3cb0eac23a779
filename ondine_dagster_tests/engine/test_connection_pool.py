"""Connections are few, used again, and survive whatever happens to the requests on them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import LoopFactory
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply

GOOD = b'{"model":"m","messages":[{"role":"user","content":"[[token=T]]"}]}'


def chat_url(simulator: Simulator) -> str:
    return f"{simulator.base_url}/chat/completions"


@pytest.mark.behaviour("E-7")
def test_more_requests_than_connections_wait_for_one(simulator: Simulator) -> None:
    async def main() -> list[Reply | Failure]:
        transport = Transport(chat_url(simulator), [{}], connections=3, seconds=10)
        replies = await asyncio.gather(*(transport.post(GOOD) for _ in range(40)))
        await transport.aclose()
        return replies

    replies = asyncio.run(main())
    assert all(isinstance(one, Reply) and one.status == 200 for one in replies)
    assert simulator.bill.totals.connections == 3


def test_the_pool_survives_a_storm_of_cancellations(
    simulator: Simulator, new_loop: LoopFactory
) -> None:
    """60 rounds of 40 requests cancelled after 0 to 30 ms on 20 connections, then 40 good ones."""
    chance = random.Random(1)

    async def give_up(transport: Transport) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(transport.post(GOOD), chance.uniform(0, 0.03))

    async def main() -> list[Reply | Failure]:
        transport = Transport(chat_url(simulator), [{}], connections=20, seconds=10)
        for _ in range(60):
            await asyncio.gather(*(give_up(transport) for _ in range(40)))
        replies = await asyncio.gather(*(transport.post(GOOD) for _ in range(40)))
        await transport.aclose()
        return replies

    with asyncio.Runner(loop_factory=new_loop) as runner:
        replies = runner.run(main())
    assert all(isinstance(one, Reply) and one.status == 200 for one in replies)


def test_a_timeout_leaves_the_pool_usable(new_loop: LoopFactory) -> None:
    """Three requests whose replies stall in the head, one after the other, on a pool of one."""
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(b"HTTP/1.1 200 OK\r\n" if len(asked) <= 3 else reply(b"{}"))
        peer.wait_for_the_end()

    async def main(url: str) -> list[Reply | Failure]:
        transport = Transport(url, [{}], connections=1, seconds=1)
        try:
            return [await transport.post(GOOD) for _ in range(4)]
        finally:
            await transport.aclose()

    with RawServer(behave) as server, asyncio.Runner(loop_factory=new_loop) as runner:
        *late, good = runner.run(main(server.url))
    assert [isinstance(one, Failure) and one.code for one in late] == [ErrorCode.TIMEOUT] * 3
    assert isinstance(good, Reply)
