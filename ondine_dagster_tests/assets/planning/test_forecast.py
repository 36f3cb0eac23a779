"""How long a run takes, and which budget stops it: arithmetic on an estimate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ondine_dagster.assets.planning.forecast import Duration, budget_forecast, durations
from ondine_dagster.ledger.budgets import Standing
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.ledger.learnt import Learnt
from ondine_dagster.ledger.limits import Limit, Unit
from ondine_dagster.llm.free_tiers import free_tier
from ondine_dagster.spec import Limits, Llm

LEARNT = Learnt(
    answers=10,
    tokens_per_byte=0.25,
    completion_tokens=20,
    cached_share=0,
    cache_write_share=0,
    latency_seconds=2,
)
FREE = free_tier(Llm(provider="openrouter", name="some/model:free"))


def asking(requests: int) -> Estimate:
    """Return an estimate with 80 prompt and 20 completion tokens for each request."""
    return Estimate(requests, 80 * requests, 20 * requests)


def lengths(requests: int, known: Learnt | None = None, **limits: Any) -> list[tuple[float, int]]:
    found = durations(asking(requests), Limits.model_validate(limits), known, None)
    return [(one.seconds, one.days) for one in found]


def test_rates_per_minute_and_latency_count_the_longest_first() -> None:
    found = lengths(600, LEARNT, requests_per_minute=300, tokens_per_minute=20_000, concurrency=10)
    assert found == [(180, 0), (120, 0), (120, 0)]
    assert lengths(600, LEARNT, concurrency=10) == [(120, 0)]
    assert lengths(600) == []
    assert lengths(600, replace(LEARNT, latency_seconds=None)) == []


def test_a_daily_cap_counts_where_it_takes_more_than_a_day() -> None:
    assert lengths(1000, requests_per_day=1000) == []
    assert lengths(1001, requests_per_day=1000) == [(0, 2)]
    assert lengths(1001, requests_per_day=1000, tokens_per_day=10_000) == [(0, 11), (0, 2)]


def test_what_the_day_has_had_already_is_not_there_for_the_run() -> None:
    limits = Limits(requests_per_day=1000)
    (found,) = durations(asking(300), limits, None, None, today=(900, 0))
    assert found == Duration("1,000 requests a day (900 used today)", days=2)
    assert durations(asking(0), limits, None, None, today=(1000, 0)) == []


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize(
    ("requests", "poor", "rich"),
    [
        (40, Duration("", seconds=120), Duration("", seconds=120)),
        (1000, Duration("", days=20), Duration("", seconds=3000)),
        (2230, Duration("", days=45), Duration("", days=3)),
    ],
)
def test_a_free_model_takes_the_minutes_or_the_days_of_its_caps(
    requests: int, poor: Duration, rich: Duration
) -> None:
    found = durations(asking(requests), Limits(), None, FREE)
    assert [replace(one, why="") for one in found] == [poor, rich]
    assert "50 a day" in found[0].why and "1,000 a day" in found[1].why


def forecast(unit: Unit, left: int, estimate: Estimate) -> tuple[bool, int | None]:
    standing = Standing(Limit("all", "day", unit, left), "", 0, 0, 0, 0)
    found = budget_forecast(standing, estimate)
    return found.sure, found.stops_after


MONEY = Estimate(requests=10, expected=100, most=500, most_tokens=400, prompt_tokens=100)


@pytest.mark.parametrize(
    ("left", "sure", "stops_after"),
    [
        (500, True, None),
        (499, False, None),
        # after 9 requests at 10 there are 50 left, which the last one needs at most
        (140, False, None),
        (139, False, 9),
        (50, False, 1),
        (49, False, 0),
    ],
)
def test_money_stops_a_run_where_the_worst_case_of_a_request_does_not_fit(
    left: int, sure: bool, stops_after: int | None
) -> None:
    assert forecast("usd", left, MONEY) == (sure, stops_after)


def test_requests_and_tokens_have_budgets_too() -> None:
    assert forecast("requests", 10, MONEY) == (True, None)
    assert forecast("requests", 4, MONEY) == (False, 4)
    assert forecast("tokens", 400, MONEY) == (True, None)
    assert forecast("tokens", 399, MONEY) == (False, None)
    assert forecast("tokens", 60, MONEY) == (False, 3)


PACKS = Estimate(requests=4, rows=100, expected=1000, most=6000, most_tokens=4000)


def test_packs_get_smaller_before_a_budget_stops_them() -> None:
    assert forecast("usd", 6000, PACKS) == (True, None)
    # a request of 25 rows has no room in 1100, and single rows do
    assert forecast("usd", 1100, PACKS) == (False, None)
    assert forecast("usd", 500, PACKS) == (False, 45)
    assert forecast("usd", 59, PACKS) == (False, 0)
    assert forecast("requests", 4, PACKS) == (False, None)
    assert forecast("requests", 3, PACKS) == (False, 3)
    assert forecast("requests", 116, PACKS) == (True, None)


def test_more_rows_in_a_request_take_longer_than_was_measured() -> None:
    limits = Limits(concurrency=2)
    alone = replace(LEARNT, rows_per_request=1)
    (found,) = durations(PACKS, limits, alone, None)
    assert (found.seconds, found.why) == (
        100,  # 2 after one another, each 25 times 2 seconds
        "50 s a request, 2 at once (measured with one row a request, and longer for more)",
    )
    (found,) = durations(PACKS, limits, replace(LEARNT, rows_per_request=25), None)
    assert (found.seconds, found.why) == (4, "2 s a request, 2 at once (measured)")
    # fewer rows may be answered sooner: nobody measured it
    (found,) = durations(PACKS, limits, replace(LEARNT, rows_per_request=50), None)
    assert found.seconds == 4
    # one request takes its time, however many go at once
    assert lengths(1, LEARNT, concurrency=10) == [(2, 0)]


def test_what_is_free_fits_every_budget() -> None:
    assert forecast("usd", 0, Estimate(requests=10)) == (True, None)
