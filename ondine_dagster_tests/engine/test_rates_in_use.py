"""Rates on a fake clock against a server that enforces them: used up and not exceeded."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from itertools import cycle

import pytest

from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rates import Rates
from ondine_dagster_tests.engine.fake_time import fake_loop, run_in_fake_time
from ondine_dagster_tests.engine.pacers import TEN_A_SECOND, make_pacer

TOKENS = Rates(tokens_per_minute=60_000)
Used = tuple[int, ...]


class TokenBucket:
    """The server: a bucket that holds some seconds of the rate, and fills without steps.

    A request is refused where what it takes is not there; then it takes nothing.
    """

    def __init__(self, per_minute: int, seconds: float = 1) -> None:
        self._rate = per_minute / 60
        self._size = self._level = self._rate * seconds
        self._filled_at = 0.0

    def take(self, amount: int, now: float) -> bool:
        self._level = min(self._size, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._level + 1e-6 < amount:
            return False
        self._level -= amount
        return True

    def empty(self) -> None:
        """Take all that is there."""
        self._level = 0.0


class Provider:
    """Asks through pacers, as engines do, and notes what came to the server when."""

    def __init__(self, bucket: TokenBucket | None, estimate: int = 1, used: Used = (1,)) -> None:
        """Requests use so many tokens in turn; without a bucket the server admits everything."""
        self.bucket = bucket
        self.estimate = estimate
        self.learns = False
        self._used = cycle(used)
        self._answers = 0
        self.sent: list[float] = []
        self.admitted: list[float] = []
        self.tokens: list[int] = []

    async def watch(self, pacers: list[Pacer], seconds: float) -> None:
        """Let 64 workers ask, spread over the pacers, with latencies of 0.2 to 1.2 s."""
        workers = [
            asyncio.ensure_future(self._ask(pacers[number % len(pacers)], 0.2 + number / 64))
            for number in range(64)
        ]
        await asyncio.sleep(seconds)
        for worker in workers:
            worker.cancel()
        ends = await asyncio.gather(*workers, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        for pacer in pacers:
            await pacer.aclose()

    async def _ask(self, pacer: Pacer, latency: float) -> None:
        while True:
            estimate, used = self.estimate, next(self._used)
            assert await pacer.slot(estimate) is None
            now = fake_loop().time()
            self.sent.append(now)
            if self.bucket is None or self.bucket.take(used, now):
                self.admitted.append(now)
                self.tokens.append(used)
                await asyncio.sleep(latency)
                pacer.correct(used - estimate)
                self._answers += 1
                if self.learns and self._answers == 5:
                    self.estimate = used
            else:
                await asyncio.sleep(0.5)

    def refused(self, start: float, end: float) -> int:
        return between(self.sent, start, end) - between(self.admitted, start, end)

    def tokens_between(self, start: float, end: float) -> int:
        return sum(self.tokens[bisect_left(self.admitted, start) : bisect_left(self.admitted, end)])


def between(moments: list[float], start: float, end: float) -> int:
    return bisect_left(moments, end) - bisect_left(moments, start)


def most_in_a_minute(moments: list[float]) -> int:
    return max(between(moments, moment, moment + 60) for moment in moments)


@pytest.mark.behaviour("B-2")
@pytest.mark.parametrize("processes", [1, 4])
def test_the_requests_of_a_minute_are_used_and_not_exceeded(
    ledgers: list[Ledger], processes: int
) -> None:
    async def main() -> Provider:
        provider = Provider(TokenBucket(600))
        await provider.watch(
            [make_pacer(ledger, TEN_A_SECOND) for ledger in ledgers[:processes]], 66
        )
        return provider

    provider = run_in_fake_time(main())
    assert between(provider.admitted, 5, 65) >= 0.95 * 600
    assert provider.refused(5, 65) <= 0.01 * 600
    assert most_in_a_minute(provider.sent) <= 600 + 600 / 240 + 1


@pytest.mark.behaviour("B-2")
@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize(
    ("estimate", "used", "bucket_seconds"),
    [(100, (100,), 1), (300, (100,), 1), (100, (33, 33, 33, 301), 5)],
)
def test_the_tokens_of_a_minute_are_used_also_where_estimates_are_wrong(
    ledgers: list[Ledger], processes: int, estimate: int, used: Used, bucket_seconds: float
) -> None:
    async def main() -> Provider:
        provider = Provider(TokenBucket(60_000, bucket_seconds), estimate, used)
        await provider.watch([make_pacer(ledger, TOKENS) for ledger in ledgers[:processes]], 36)
        return provider

    provider = run_in_fake_time(main())
    assert provider.tokens_between(5, 35) >= 0.95 * 30_000
    assert provider.refused(5, 35) <= 0.01 * between(provider.sent, 5, 65)


@pytest.mark.behaviour("B-2")
def test_a_bucket_that_somebody_else_has_emptied_recovers(ledgers: list[Ledger]) -> None:
    """The rate itself would keep it empty: a refused request counts as one that was sent."""

    async def main() -> Provider:
        bucket = TokenBucket(60_000)
        provider = Provider(bucket, estimate=100, used=(60, 140))
        watched = asyncio.ensure_future(
            provider.watch([make_pacer(ledger, TOKENS) for ledger in ledgers], 36)
        )
        await asyncio.sleep(5)
        bucket.empty()
        await watched
        return provider

    provider = run_in_fake_time(main())
    assert provider.refused(5, 10) > 0
    assert provider.refused(15, 35) <= 0.01 * between(provider.sent, 15, 35)


@pytest.mark.behaviour("B-2")
def test_estimates_that_are_far_too_low_cost_the_first_seconds_only(
    ledgers: list[Ledger],
) -> None:
    async def main() -> Provider:
        provider = Provider(TokenBucket(60_000), estimate=33, used=(100,))
        provider.learns = True
        await provider.watch([make_pacer(ledger, TOKENS) for ledger in ledgers], 36)
        return provider

    provider = run_in_fake_time(main())
    assert provider.tokens_between(5, 35) >= 0.95 * 30_000
    assert provider.refused(5, 35) <= 0.01 * between(provider.sent, 5, 65)


def test_also_estimates_that_stay_too_low_are_made_up_for(ledger: Ledger) -> None:
    """Then there are bursts, as long as an answer takes, and pauses that make up for them."""

    async def main() -> Provider:
        provider = Provider(None, estimate=33, used=(100,))
        await provider.watch([make_pacer(ledger, TOKENS)], 36)
        return provider

    provider = run_in_fake_time(main())
    assert 0.95 * 30_000 <= provider.tokens_between(5, 35) <= 1.05 * 30_000
