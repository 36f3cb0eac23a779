"""How long a run will take, and which budget would stop it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ondine_dagster.ledger.budgets import Standing
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.ledger.learnt import Learnt
from ondine_dagster.llm.free_tiers import FreeTier
from ondine_dagster.spec import Limits

_MINUTE, _DAY = 60.0, 86_400.0
# rows per request differ by chance up to this
_FULLER = 1.25


@dataclass(frozen=True, slots=True)
class Duration:
    """How long requests take for one reason; `days` instead where a daily cap spreads them."""

    why: str
    seconds: float = 0
    days: int = 0

    @property
    def length(self) -> float:
        """Return what durations are compared by (seconds)."""
        return max(self.seconds, self.days * _DAY)


def durations(
    estimate: Estimate,
    limits: Limits,
    known: Learnt | None,
    tier: FreeTier | None,
    today: tuple[int, int] = (0, 0),
) -> Sequence[Duration]:
    """Return how long `estimate` takes at each limit and at the measured latency, longest first.

    `today` are the requests and tokens that the day has had already. The free tier's durations
    are last: which of them counts depends on the account.
    """
    found = sorted(_declared(estimate, limits, today), key=lambda one: -one.length)
    if known and known.together and estimate.rows > estimate.requests:
        known = known.together
    if known and known.latency_seconds is not None:
        measured = _measured(estimate, limits.concurrency, known.latency_seconds, known)
        found = sorted([*found, measured], key=lambda one: -one.length)
    return [*found, *(_free(estimate, tier) if tier else ())]


def _measured(estimate: Estimate, at_once: int, latency: float, known: Learnt) -> Duration:
    """Return how long requests take that are answered as fast as those so far.

    With more rows than those had they are taken to last so much longer.
    """
    requests = max(1, estimate.requests)
    fuller = estimate.rows / requests / known.rows_per_request
    how = "measured"
    if fuller > _FULLER:
        latency *= fuller
        asked = f"{known.rows_per_request:.3g} rows" if known.rows_per_request > 1 else "one row"
        how += f" with {asked} a request, and longer for more"
    seconds = -(-estimate.requests // at_once) * latency
    return Duration(f"{latency:.3g} s a request, {at_once} at once ({how})", seconds)


def _declared(estimate: Estimate, limits: Limits, today: tuple[int, int]) -> Iterator[Duration]:
    requests = estimate.requests
    tokens = estimate.prompt_tokens + estimate.completion_tokens
    if (rate := limits.requests_per_minute) is not None:
        yield Duration(f"{rate:,} requests a minute", requests * _MINUTE / rate)
    if (rate := limits.tokens_per_minute) is not None:
        yield Duration(f"{rate:,} tokens a minute", tokens * _MINUTE / rate)
    for cap, amount, used, unit in (
        (limits.requests_per_day, requests, today[0], "requests"),
        (limits.tokens_per_day, tokens, today[1], "tokens"),
    ):
        if cap is not None and amount and (days := _days(amount + min(used, cap), cap)) > 1:
            had = f" ({used:,} used today)" if used else ""
            yield Duration(f"{cap:,} {unit} a day{had}", days=days)


def _free(estimate: Estimate, tier: FreeTier) -> Iterator[Duration]:
    """Yield how long it takes for each kind of account: the minute's rate or the day's cap."""
    rate = tier.requests_per_minute
    for cap in tier.daily:
        days = _days(estimate.requests, cap.requests)
        why = f"free model: {rate} a minute, {cap.requests:,} a day ({cap.whom})"
        if days > 1:
            yield Duration(why, days=days)
        else:
            yield Duration(why, estimate.requests * _MINUTE / rate)


def _days(amount: int, per_day: int) -> int:
    return -(-amount // per_day)


@dataclass(frozen=True, slots=True)
class BudgetForecast:
    """What is left of a budget, and what a run needs of it.

    `stops_after` are the requests (rows, where several go in a request) that it is enough for,
    where it is not enough for all; None where it is, if they use what is expected. `sure`: it is
    enough whatever they use.
    """

    standing: Standing
    expected: int
    most: int
    stops_after: int | None
    sure: bool
    counted: str = "request"


def budget_forecast(standing: Standing, estimate: Estimate) -> BudgetForecast:
    """Return whether a budget is enough for what a run is expected to use.

    A request is sent only while its own worst case fits: so much of a budget stays unused. One of
    several rows gets smaller before that, down to a single row.
    """
    requests, left = estimate.requests, standing.left
    packed = estimate.rows > requests
    if standing.limit.unit == "requests":
        # each pack may be asked again by halves, and each row alone
        most = 4 * requests + estimate.rows if packed else requests
        short = left if left < requests else None
        return BudgetForecast(standing, requests, most, short, sure=most <= left)
    expected, most = {
        "usd": (estimate.expected, estimate.most),
        "tokens": (estimate.prompt_tokens + estimate.completion_tokens, estimate.most_tokens),
    }[standing.limit.unit]
    asked = estimate.rows if packed else requests
    stops_after = None
    if asked and most > left:
        # the last one needs its worst case, those before it only what they used
        mean, worst = expected / asked, most / asked
        fit = max(0, int((left - worst) / mean) + 1 if mean else asked) if left >= worst else 0
        stops_after = fit if fit < asked else None
    counted = "row" if packed else "request"
    return BudgetForecast(standing, expected, most, stops_after, most <= left, counted)
