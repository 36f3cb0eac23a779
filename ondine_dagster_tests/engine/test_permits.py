"""Permits go to those who wait longest, and nobody is woken in vain."""

from __future__ import annotations

import asyncio

from ondine_dagster.engine.permits import Permits


def test_permits_go_to_those_who_wait_longest_and_nobody_is_woken_in_vain() -> None:
    async def main() -> None:
        permits, order = Permits(1), []

        async def want(name: int) -> None:
            assert await permits.take()
            order.append(name)

        assert await permits.take()
        tasks = [asyncio.create_task(want(name)) for name in range(50)]
        await asyncio.sleep(0)
        for turn in range(50):
            permits.give_back()
            await asyncio.sleep(0)
            assert order == list(range(turn + 1))
            assert permits.held == 1
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_higher_limit_lets_as_many_go_and_a_lower_one_takes_nothing_away() -> None:
    async def main() -> None:
        permits = Permits(3)
        tasks = [asyncio.create_task(permits.take()) for _ in range(10)]
        await asyncio.sleep(0)
        permits.limit = 5
        permits.hand_over()
        await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) == permits.held == 5
        permits.limit = 2
        permits.give_back()
        await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) == 5
        permits.dismiss()
        assert (await asyncio.gather(*tasks)).count(False) == 5
        assert permits.held == 4

    asyncio.run(main())


def test_who_stops_waiting_costs_no_permit() -> None:
    async def main() -> None:
        permits = Permits(1)
        assert await permits.take()
        waiting, handed, last = (asyncio.create_task(permits.take()) for _ in range(3))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        permits.give_back()  # to `handed`, who is cancelled in the same step
        handed.cancel()
        assert await last
        assert permits.held == 1
        assert not permits.wanted

    asyncio.run(main())
