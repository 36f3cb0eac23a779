"""The one retry layer: when to ask again, how long to wait before, and when not to wait at all.

Nothing else repeats a request: no SDK, no HTTP client, no Dagster RetryPolicy.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from ondine_dagster.llm.errors import STOPS, ErrorCode, Evidence, Failure

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
_MOST_DOUBLINGS = 32  # limits.max_attempts has no upper bound, a float has
# a provider that asks for more is out for longer than a run should sleep
LONGEST_RETRY_AFTER_SECONDS = 120.0
_RUN_AGAIN = (
    f"A run waits for {LONGEST_RETRY_AFTER_SECONDS:g} s at most. Run again then: what is answered "
    "is not paid for again"
)
_LONGEST_SHOWN_SECONDS = 10 * 365 * 86_400.0  # beyond it a date says nothing, or does not exist


def retrying(
    used_up: Callable[[], bool], sleep: Callable[[float], Awaitable[None]]
) -> AsyncRetrying:
    """Return a retry loop for calls that return a `Failure` when they may be repeated.

    Gives back the last result when the attempts are `used_up`. One loop serves one question.
    """
    return AsyncRetrying(
        retry=retry_if_result(may_repeat),
        stop=lambda _: used_up(),
        wait=wait_seconds,
        sleep=sleep,
        retry_error_callback=_last_result,
    )


def wait_seconds(state: RetryCallState) -> float:
    """Return the wait before the next attempt: as told and a little more, else exponential.

    Jitter keeps rows that failed together from coming back together.
    """
    failure = _result(state)
    if isinstance(failure, Failure) and failure.retry_after:  # 0: come back when you like
        return failure.retry_after * random.uniform(1.0, 1.1)  # noqa: S311 (no secret)
    doublings = min(state.attempt_number - 1, _MOST_DOUBLINGS)
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**doublings)
    return random.uniform(longest / 2, longest)  # noqa: S311 (no secret)


def may_repeat(result: object) -> bool:
    """Return whether the same request may be sent again."""
    return isinstance(result, Failure) and result.retryable and not out_for_long(result)


def out_for_long(failure: Failure) -> bool:
    """Return whether the provider asked for a longer wait than a run should sleep."""
    return failure.retryable and (failure.retry_after or 0) > LONGEST_RETRY_AFTER_SECONDS


def renews_later(seconds: float, now: datetime | None = None) -> Failure:
    """Return what to stop the run with where a used-up window renews after so many seconds."""
    code = ErrorCode.RATE_LIMITED_DAILY
    message = f"the provider's allowance is used up and renews {_when(seconds, now)}. {_RUN_AGAIN}"
    return Failure(STOPS[code], code, message, Evidence.NOT_SENT)


def deferred(failure: Failure, now: datetime | None = None) -> Failure | None:
    """Return what to stop the run with where asking again within it is pointless, else None.

    A limit that renews in hours is a daily one; any other long wait is the provider's outage.
    """
    if not out_for_long(failure):
        return failure if failure.code in STOPS else None
    limited = failure.code is ErrorCode.RATE_LIMITED
    code = ErrorCode.RATE_LIMITED_DAILY if limited else failure.code
    message = (
        f"{failure.message}. The provider asks to come back {_when(failure.retry_after or 0, now)}."
        f" {_RUN_AGAIN}"
    )
    return replace(
        failure, code=code, error_class=STOPS.get(code, failure.error_class), message=message
    )


def _when(seconds: float, now: datetime | None) -> str:
    if seconds > _LONGEST_SHOWN_SECONDS:
        return "in more than 10 years"
    moment = (now or datetime.now(UTC)) + timedelta(seconds=seconds)
    return f"in {_duration(seconds)} ({moment:%Y-%m-%d %H:%M} UTC)"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _result(state: RetryCallState) -> object:
    return state.outcome.result() if state.outcome else None


def _last_result(state: RetryCallState) -> object:
    return _result(state)
