"""Leases: the arithmetic of shared rates and daily caps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.rates import BURST, LEASE, SECOND, Lease, Rates, UsedUp, lease
from ondine_dagster_tests.ledger.builders import CONTEXT, execute, rows, value

KEY = CONTEXT.provider_key
DAY = "2027-01-15"
MIDNIGHT = 1_800_057_600 * SECOND  # the end of that day
NOW = MIDNIGHT - 3600 * SECOND
TEN_A_SECOND = Rates(requests_per_minute=600)
STEP = SECOND // 10


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


def take(
    database: Database,
    rates: Rates,
    weights: Sequence[int],
    *,
    now: int = NOW,
    engines: int = 1,
    correction: int = 0,
    unused: int = 0,
) -> Lease:
    with database.write() as connection:
        return lease(
            connection,
            KEY,
            rates,
            weights,
            correction=correction,
            engines=engines,
            now=now,
            unused=unused,
        )


def offsets(taken: Lease, now: int = NOW) -> list[int]:
    assert taken.used_up is None
    return [instant - now for instant in taken.instants]


def busy(database: Database, rates: Rates, *, now: int = NOW) -> None:
    """Let the row be free from `now` on, with no allowance left unused before."""
    execute(
        database,
        """INSERT INTO provider_state
           (provider, endpoint, model_family, next_request_at, next_token_at)
           VALUES (?, ?, ?, ?, ?)""",
        KEY.provider,
        KEY.endpoint,
        KEY.model_family,
        now if rates.requests_per_minute else None,
        now if rates.tokens_per_minute else None,
    )


# per minute


@pytest.mark.behaviour("B-2")
def test_each_request_of_a_lease_gets_an_instant_of_its_own(database: Database) -> None:
    busy(database, TEN_A_SECOND)
    assert offsets(take(database, TEN_A_SECOND, [1] * 3)) == [0, STEP, 2 * STEP]
    assert offsets(take(database, TEN_A_SECOND, [1] * 2)) == [3 * STEP, 4 * STEP]


def test_what_was_left_unused_may_be_caught_up_with_for_a_quarter_of_a_second(
    database: Database,
) -> None:
    """After an hour of nothing as after a lease that came late: never more than that."""
    assert offsets(take(database, TEN_A_SECOND, [1] * 4)) == [0, 0, 0, STEP // 2]
    late = NOW + SECOND
    assert offsets(take(database, TEN_A_SECOND, [1] * 4, now=late), late) == [0, 0, 0, STEP // 2]


@pytest.mark.parametrize(("engines", "granted"), [(1, 5), (2, 2), (4, 1), (100, 1)])
def test_a_lease_takes_half_a_second_of_the_rate_shared_by_the_engines(
    database: Database, engines: int, granted: int
) -> None:
    busy(database, TEN_A_SECOND)
    taken = take(database, TEN_A_SECOND, [1] * 1000, engines=engines)
    assert len(taken.instants) == granted


def test_a_slow_rate_gives_one_request_at_a_time(database: Database) -> None:
    rates = Rates(requests_per_minute=1)
    busy(database, rates)
    assert offsets(take(database, rates, [1] * 5)) == [0]
    assert take(database, rates, [1] * 5, now=NOW + 59 * SECOND) == Lease(())
    soon = NOW + 60 * SECOND - LEASE
    assert offsets(take(database, rates, [1] * 5, now=soon), soon) == [LEASE]


@pytest.mark.behaviour("B-2")
def test_requests_are_spaced_by_their_tokens_too(database: Database) -> None:
    rates = replace(TEN_A_SECOND, tokens_per_minute=60_000)  # one a millisecond
    busy(database, rates)
    assert offsets(take(database, rates, [250, 10, 10, 10])) == [0, 250_000, 260_000, 300_000]


def test_a_request_larger_than_a_lease_goes_and_the_next_waits_its_time(database: Database) -> None:
    rates = Rates(tokens_per_minute=60_000)
    busy(database, rates)
    assert offsets(take(database, rates, [30_000, 1])) == [0]
    assert take(database, rates, [1]) == Lease(())
    later = NOW + 30 * SECOND
    assert offsets(take(database, rates, [1], now=later), later) == [0]


def test_a_rate_that_does_not_divide_a_minute_is_never_exceeded(database: Database) -> None:
    rates = Rates(requests_per_minute=7)
    busy(database, rates)
    now, count = NOW, 0
    while now < NOW + 60 * SECOND:
        count += len(take(database, rates, [1], now=now).instants)
        now += SECOND // 5
    assert count == 8  # those at 0, 8.6, ... 51.4, and one at 60 that was leased just before
    assert value(database, "SELECT next_request_at FROM provider_state") >= NOW + 480 * SECOND / 7


@pytest.mark.behaviour("B-2")
def test_corrections_move_the_next_free_token(database: Database) -> None:
    rates = Rates(tokens_per_minute=60_000)
    busy(database, rates)
    take(database, rates, [10_000])
    assert take(database, rates, [1]) == Lease(())
    assert offsets(take(database, rates, [1], correction=-9_900)) == [100_000]
    assert take(database, rates, [1], correction=2_000) == Lease(())
    later = NOW + 2_101_000
    assert offsets(take(database, rates, [1], now=later), later) == [0]


def test_what_was_given_back_is_no_more_than_a_small_burst(database: Database) -> None:
    """A thousand answers that were shorter than expected do not let a minute go at once."""
    rates = Rates(tokens_per_minute=60_000)
    busy(database, rates)
    given = offsets(take(database, rates, [10] * 1000, correction=-1_000_000))
    assert sum(offset == 0 for offset in given) == 1 + BURST // 10_000
    assert given[-1] <= LEASE


def test_requests_without_a_rate_do_not_wait_for_those_that_have_one(database: Database) -> None:
    take(database, Rates(requests_per_minute=1), [1])
    assert offsets(take(database, Rates(requests_per_day=100), [1] * 50)) == [0] * 50
    assert take(database, Rates(requests_per_minute=1), [1]) == Lease(())


def test_models_have_rates_of_their_own(database: Database) -> None:
    busy(database, TEN_A_SECOND)
    take(database, TEN_A_SECOND, [1] * 5)
    other = replace(KEY, model_family="another")
    with database.write() as connection:
        taken = lease(connection, other, TEN_A_SECOND, [1], correction=0, engines=1, now=NOW)
    assert offsets(taken) == [0]


def test_a_lease_leaves_the_rest_of_the_row_alone(database: Database) -> None:
    busy(database, TEN_A_SECOND)
    execute(database, "UPDATE provider_state SET ceiling = 7, paused_until = 8")
    take(database, TEN_A_SECOND, [1])
    assert rows(database, "SELECT ceiling, paused_until FROM provider_state") == [(7, 8)]


def test_a_row_from_a_wrong_clock_holds_nobody(database: Database) -> None:
    take(database, TEN_A_SECOND, [1], now=NOW + 365 * 86_400 * SECOND)
    assert offsets(take(database, TEN_A_SECOND, [1])) == [0]


def test_a_clock_that_was_set_back_by_minutes_holds_no_requests(database: Database) -> None:
    take(database, TEN_A_SECOND, [1], now=NOW + 300 * SECOND)
    assert offsets(take(database, TEN_A_SECOND, [1])) == [0]


# per day


@pytest.mark.behaviour("B-5")
def test_a_day_has_so_many_requests_and_no_more(database: Database) -> None:
    rates = Rates(requests_per_day=5)
    assert len(take(database, rates, [1] * 3).instants) == 3
    assert len(take(database, rates, [1] * 3).instants) == 2
    assert take(database, rates, [1] * 3) == Lease(
        (), UsedUp("requests", cap=5, used=5, needed=1, day=DAY, renews_at=MIDNIGHT)
    )


@pytest.mark.behaviour("B-5")
def test_a_day_has_so_many_tokens_as_they_were_really_used(database: Database) -> None:
    rates = Rates(tokens_per_day=1000)
    assert len(take(database, rates, [400, 400, 400]).instants) == 2
    used_up = take(database, rates, [400]).used_up
    assert used_up == UsedUp("tokens", 1000, used=800, needed=400, day=DAY, renews_at=MIDNIGHT)
    assert len(take(database, rates, [400], correction=-200).instants) == 1
    assert take(database, rates, [1]).used_up


@pytest.mark.behaviour("B-5")
def test_a_new_day_begins_at_midnight_utc(database: Database) -> None:
    rates = Rates(requests_per_day=2)
    take(database, rates, [1, 1])
    assert take(database, rates, [1], now=MIDNIGHT - 1).used_up
    assert offsets(take(database, rates, [1, 1, 1], now=MIDNIGHT), MIDNIGHT) == [0, 0]
    assert take(database, rates, [1], now=MIDNIGHT).used_up


def test_a_request_counts_for_the_day_of_its_instant(database: Database) -> None:
    """The last of this day are leased before midnight, those after it are the next day's."""
    rates = replace(TEN_A_SECOND, requests_per_day=4)
    now = MIDNIGHT - 2 * STEP
    busy(database, rates, now=now)
    assert offsets(take(database, rates, [1] * 5, now=now), now) == [0, STEP]
    assert offsets(take(database, rates, [1] * 5, now=now), now) == [
        2 * STEP,
        3 * STEP,
        4 * STEP,
        5 * STEP,
    ]
    later = take(database, rates, [1], now=now + 5 * STEP).used_up
    assert later is not None
    assert later.renews_at == MIDNIGHT + 86_400 * SECOND


@pytest.mark.behaviour("B-5")
def test_a_request_that_is_free_tomorrow_only_does_not_let_today_be_forgotten(
    database: Database,
) -> None:
    """Its large estimate proves wrong, and then today goes on."""
    rates = Rates(tokens_per_minute=1000, requests_per_day=2)
    now = MIDNIGHT - 600 * SECOND
    busy(database, rates, now=now)
    assert len(take(database, rates, [5], now=now).instants) == 1
    assert len(take(database, rates, [20_000], now=now + SECOND).instants) == 1
    used_up = take(database, rates, [1], now=now + 2 * SECOND).used_up
    assert used_up is not None
    assert (used_up.day, used_up.renews_at) == (DAY, MIDNIGHT)
    assert take(database, rates, [1], now=now + 3 * SECOND, correction=-20_000).used_up


@pytest.mark.behaviour("B-5")
def test_requests_that_were_not_sent_are_none_of_the_day(database: Database) -> None:
    rates = Rates(requests_per_day=3)
    assert len(take(database, rates, [1] * 3).instants) == 3
    assert len(take(database, rates, [1] * 3, unused=2).instants) == 2
    assert take(database, rates, [1]).used_up
    assert len(take(database, rates, [1] * 9, unused=9).instants) == 3


def test_a_cap_is_told_at_once_and_not_after_the_wait_for_the_rate(database: Database) -> None:
    rates = Rates(requests_per_minute=1, requests_per_day=1)
    take(database, rates, [1])
    assert take(database, rates, [1]).used_up
