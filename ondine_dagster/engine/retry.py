"""The one retry layer: when to ask again, and how long to wait before.

Nothing else repeats a request: no SDK, no HTTP client, no Dagster RetryPolicy.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from ondine_dagster.llm.errors import Failure

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# a provider that asks for more is out for longer than a run should sleep
LONGEST_RETRY_AFTER_SECONDS = 120.0


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
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 (no secret)


def may_repeat(result: object) -> bool:
    """Return whether the same request may be sent again."""
    return isinstance(result, Failure) and result.retryable and not out_for_long(result)


def out_for_long(failure: Failure) -> bool:
    """Return whether the provider asked for a longer wait than a run should sleep."""
    return failure.retryable and (failure.retry_after or 0) > LONGEST_RETRY_AFTER_SECONDS


def _result(state: RetryCallState) -> object:
    return state.outcome.result() if state.outcome else None


def _last_result(state: RetryCallState) -> object:
    return _result(state)
