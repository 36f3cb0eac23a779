"""The arithmetic of money: exact, rounded up, and never above its worst case."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from ondine_dagster.llm.prices import Prices, Rates, Tier, picodollars, usd


def rates(input: int, output: int, cached: int | None = None, write: int | None = None) -> Rates:
    """Return rates in whole picodollars per token."""
    first = (input, output, input if cached is None else cached, input if write is None else write)
    return Rates(*(10**6 * one for one in first))


def test_dollars_become_integers_and_come_back() -> None:
    assert picodollars(Decimal("0.15")) == 150_000_000_000
    assert usd(picodollars(Decimal("0.15"))) == Decimal("0.15")


def test_what_is_smaller_than_a_picodollar_is_rounded_up() -> None:
    assert picodollars(Decimal("1e-13")) == 1
    one = Prices(Rates(1, 0, 1, 1))
    assert one.cost(1, 0) == 1
    assert one.cost(10**6, 0) == 1
    assert one.cost(10**6 + 1, 0) == 2


def test_each_kind_of_token_has_its_own_rate() -> None:
    prices = Prices(rates(input=10, output=100, cached=1, write=13), request=7)
    assert prices.cost(0, 0) == 7
    assert prices.cost(5, 0) == 7 + 5 * 10
    assert prices.cost(5, 2) == 7 + 5 * 10 + 2 * 100
    assert prices.cost(5, 2, cached_tokens=3) == 7 + 2 * 10 + 3 * 1 + 2 * 100
    assert prices.cost(5, 2, 3, cache_write_tokens=1) == 7 + 10 + 3 * 1 + 13 + 2 * 100


def test_no_token_is_billed_twice_though_the_counts_of_the_cache_are_too_high() -> None:
    prices = Prices(rates(input=10, output=0, cached=1, write=13))
    assert prices.cost(5, 0, cached_tokens=9, cache_write_tokens=9) == 5
    assert prices.cost(5, 0, cached_tokens=3, cache_write_tokens=9) == 3 + 2 * 13


def test_a_price_that_is_not_given_for_the_cache_is_that_of_other_input() -> None:
    prices = Prices.per_million_usd(Decimal(3), Decimal(15))
    assert prices.cost(1000, 0, 400, 500) == prices.cost(1000, 0)


def test_a_tier_is_for_the_whole_request_above_its_threshold() -> None:
    prices = Prices(
        rates(10, 100),
        tiers=(Tier(1000, rates(20, 150, cached=2)), Tier(2000, rates(15, 120))),
    )
    assert prices.cost(1000, 1) == 1000 * 10 + 100
    assert prices.cost(1001, 1) == 1001 * 20 + 150
    assert prices.cost(1001, 1, cached_tokens=1) == 1000 * 20 + 2 + 150
    assert prices.cost(2001, 1) == 2001 * 15 + 120


def test_the_worst_case_is_the_dearest_of_all_tiers_that_can_be_reached() -> None:
    prices = Prices(
        rates(10, 100, write=13),
        request=7,
        tiers=(Tier(1000, rates(20, 150)), Tier(2000, rates(15, 120))),
    )
    assert prices.worst_case(1000, 5) == 1000 * 13 + 5 * 100 + 7
    assert prices.worst_case(1001, 5) == 1001 * 20 + 5 * 150 + 7
    assert prices.worst_case(5000, 5) == 5000 * 20 + 5 * 150 + 7


@pytest.mark.behaviour("B-2")
def test_no_request_within_its_bounds_costs_more_than_the_worst_case() -> None:
    """Small numbers, so that thresholds, roundings and cheap tiers meet often."""
    chance = random.Random(20)
    reached = 0
    for _ in range(3000):
        prices = _any_prices(chance)
        bound, ceiling = chance.randrange(60), chance.randrange(20)
        worst = prices.worst_case(bound, ceiling)
        for _ in range(20):
            prompt, completion = chance.randint(0, bound), chance.randint(0, ceiling)
            cached, written = chance.randint(0, bound), chance.randint(0, bound)
            cost = prices.cost(prompt, completion, cached, written)
            assert cost <= worst, (prices, bound, ceiling, prompt, completion, cached, written)
            reached += cost == worst
    assert reached > 100  # the bound is no higher than it has to be


def _any_prices(chance: random.Random) -> Prices:
    def some_rates() -> Rates:
        return Rates(*(chance.choice((0, 1, 999_999, chance.randrange(5 * 10**6))) for _ in "1234"))

    thresholds = sorted(chance.sample(range(1, 60), chance.randrange(4)))
    tiers = tuple(Tier(threshold, some_rates()) for threshold in thresholds)
    return Prices(some_rates(), chance.randrange(3), tiers)


def test_the_digest_differs_where_a_cost_could() -> None:
    base = Prices(rates(1, 2))
    others = [
        Prices(rates(1, 3)),
        Prices(rates(1, 2, cached=0)),
        Prices(rates(1, 2, write=2)),
        Prices(rates(1, 2), request=1),
        Prices(rates(1, 2), tiers=(Tier(5, rates(1, 2)),)),
    ]
    assert base.digest == Prices(rates(1, 2)).digest
    assert len({one.digest for one in [base, *others]}) == 6
