"""Engines' traffic on a fake clock, with no engine and no provider around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.engine.traffic import Traffic
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import ProviderKey
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster_tests.engine.fake_time import fake_loop
from ondine_dagster_tests.ledger.builders import value

KEY = ProviderKey("openai_compatible", "http://127.0.0.1:9/v1", "m")


def failure(code: ErrorCode, retry_after: float | None = None) -> Failure:
    capacity = code in (ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED)
    error_class = ErrorClass.CAPACITY if capacity else ErrorClass.TRANSIENT
    return Failure(error_class, code, f"the reason: {code}", Evidence.REFUSED, retry_after)


@dataclass
class Engine:
    """An engine's traffic and what a person would see of it."""

    traffic: Traffic
    stop: StopSign
    progress: Progress

    async def ask(self, failed: Failure | None = None) -> bool:
        """Send one request. Return whether it was sent."""
        if not await self.traffic.enter():
            return False
        started = fake_loop().time()
        await asyncio.sleep(0.01)
        self.end(failed, started)
        return True

    def end(self, failed: Failure | None = None, started: float | None = None) -> None:
        """End a request that has a permit."""
        started = fake_loop().time() if started is None else started
        if failed is None:
            self.traffic.answered(started)
        else:
            self.traffic.failed(failed, started)
        self.traffic.leave()


def engine(ledger: Ledger, concurrency: int = 16, max_outage_seconds: float = 600.0) -> Engine:
    loop, stop, progress = fake_loop(), StopSign(), Progress()
    traffic = Traffic(
        ledger,
        KEY,
        concurrency=concurrency,
        max_outage_seconds=max_outage_seconds,
        stop=stop,
        progress=progress,
        monotonic=loop.time,
        clock_ms=lambda: loop.microseconds() // 1000,
    )
    return Engine(traffic, stop, progress)


async def start(*ledgers: Ledger, **settings: Any) -> list[Engine]:
    engines = [engine(ledger, **settings) for ledger in ledgers]
    for each in engines:
        await each.traffic.start()
    return engines


async def close(engines: Sequence[Engine]) -> None:
    for each in engines:
        await each.traffic.aclose()


def row(ledger: Ledger, column: str) -> Any:
    return value(ledger.database, f"SELECT {column} FROM provider_state")


async def break_it(one: Engine, failed: Failure | None = None) -> None:
    """Fail until the breaker is open and every engine knows."""
    for _ in range(10):
        await one.ask(failed or failure(ErrorCode.SERVER_ERROR))
    await asyncio.sleep(0.7)
