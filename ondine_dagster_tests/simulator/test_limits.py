"""Limits of the server: what is admitted, what a 429 says, what the headers tell."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ondine_dagster.simulator import ServerLimits, Simulator
from ondine_dagster.simulator.rate_headers import go_duration
from ondine_dagster_tests.simulator.clients import Clock, ask

Started = Callable[..., Simulator]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(simulator_factory: Callable[..., Simulator], clock: Clock) -> Started:
    """Start a simulator with the limits given, on the clock of the test."""
    return lambda **limits: simulator_factory(limits=ServerLimits(**limits), clock=clock)


def statuses(simulator: Simulator, count: int) -> list[int]:
    return [ask(simulator, f"question {n}").status_code for n in range(count)]


def rate_headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if "ratelimit" in name}


def test_requests_per_minute_are_a_bucket_of_one_second_that_refills(
    limited: Started, clock: Clock
) -> None:
    simulator = limited(requests_per_minute=180)
    assert statuses(simulator, 5) == [200, 200, 200, 429, 429]
    clock.now += 1 / 3
    assert statuses(simulator, 2) == [200, 429]
    clock.now += 3600
    assert statuses(simulator, 4) == [200, 200, 200, 429]


def test_a_burst_may_be_longer_and_is_one_request_at_least(limited: Started) -> None:
    assert statuses(limited(requests_per_minute=6, burst_seconds=30), 4) == [200, 200, 200, 429]
    assert statuses(limited(requests_per_minute=6), 2) == [200, 429]


def test_a_429_is_openai_s_and_says_when_one_would_pass(limited: Started, clock: Clock) -> None:
    simulator = limited(requests_per_minute=7)
    ask(simulator, "one")
    refused = ask(simulator, "two")
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert refused.headers["retry-after"] == "8.572"
    clock.now += 8.57
    assert ask(simulator, "two").status_code == 429
    clock.now += 0.002
    assert ask(simulator, "two").status_code == 200


@pytest.mark.parametrize("value", ["0", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_can_be_fixed_in_any_form(limited: Started, value: str) -> None:
    simulator = limited(requests_per_minute=1, retry_after=value)
    ask(simulator, "one")
    assert ask(simulator, "two").headers["retry-after"] == value


def test_tokens_are_taken_at_admission_and_at_the_answer(limited: Started, clock: Clock) -> None:
    simulator = limited(tokens_per_minute=60, burst_seconds=10)
    usage = ask(simulator, f"[[token=abcdefgh]]{'x' * 62}").json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 2)
    refused = ask(simulator, "two")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "13")
    clock.now += 12.9
    assert ask(simulator, "two").status_code == 429
    clock.now += 0.1
    assert ask(simulator, "two").status_code == 200
    assert simulator.bill.snapshot().limited == {"tokens_per_minute": 2}


def test_a_failed_request_takes_the_tokens_of_its_prompt_only(limited: Started) -> None:
    simulator = limited(tokens_per_minute=60, burst_seconds=30, rate_headers="openai")
    good, failed = (ask(simulator, text) for text in ("[[token=abcdefgh]]", "[[fault=500]]"))
    assert good.json()["usage"]["total_tokens"] == 7
    remaining = [reply.headers["x-ratelimit-remaining-tokens"] for reply in (good, failed)]
    assert remaining == ["23", "19"]


def test_requests_per_day_end_at_midnight_utc(limited: Started, clock: Clock) -> None:
    simulator = limited(requests_per_day=2)
    clock.now += 86_400 - 7.5
    assert statuses(simulator, 2) == [200, 200]
    refused = ask(simulator, "one more")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7.5")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    clock.now += 7.5
    assert statuses(simulator, 3) == [200, 200, 429]


def test_more_than_the_capacity_is_refused_at_once(limited: Started) -> None:
    simulator = limited(capacity=2)
    simulator.hold()
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(ask, simulator, f"question {n}") for n in range(2)]
        assert simulator.bill.wait_for(lambda totals: totals.charged == 2)
        refused = ask(simulator, "one more")
        simulator.release()
        assert [reply.result().status_code for reply in held] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "slow_down"
    assert statuses(simulator, 5) == [200] * 5
    assert simulator.bill.snapshot().limited == {"capacity": 1}


def test_refused_requests_count_only_where_that_is_asked(limited: Started, clock: Clock) -> None:
    kind, strict = (limited(requests_per_minute=60, count_refused=count) for count in (False, True))
    for simulator in (kind, strict):
        ask(simulator, "one")
    clock.now += 0.5
    for simulator in (kind, strict):
        assert ask(simulator, "two").status_code == 429
    clock.now += 0.5
    assert (ask(kind, "two").status_code, ask(strict, "two").status_code) == (200, 429)


def test_the_bill_says_what_was_admitted_and_limited_in_each_second(
    limited: Started, clock: Clock
) -> None:
    simulator = limited(requests_per_minute=120)
    statuses(simulator, 3)
    clock.now += 0.9
    statuses(simulator, 2)
    clock.now += 5
    statuses(simulator, 1)
    bill = simulator.bill.snapshot()
    assert bill.seconds == [(0, 3, 2), (5, 1, 0)]
    assert bill.limited == {"requests_per_minute": 2}
    totals = bill.totals
    assert (totals.requests, totals.limited, totals.refused, totals.charged) == (6, 2, 2, 4)
    assert sum(line.requests for line in bill.prompts.values()) == 4


def test_openai_s_headers_count_down_on_every_reply(limited: Started, clock: Clock) -> None:
    simulator = limited(
        requests_per_minute=120, tokens_per_minute=6000, rate_headers="openai", burst_seconds=1
    )
    good = ask(simulator, "[[token=abcd]]")
    assert rate_headers(good) == {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "95",
        "x-ratelimit-reset-tokens": "50ms",
    }
    failed = ask(simulator, "[[fault=500]]")
    assert failed.headers["x-ratelimit-remaining-requests"] == "0"
    refused = ask(simulator, "three")
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"] == "1s"


def test_groq_tells_of_requests_per_day_and_tokens_per_minute(
    limited: Started, clock: Clock
) -> None:
    simulator = limited(
        requests_per_minute=60, tokens_per_minute=60, requests_per_day=5, rate_headers="groq"
    )
    clock.now += 86_400 - 180.44
    assert rate_headers(ask(simulator, "[[token=abcd]]")) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "3m0.44s",
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "5s",
    }


def test_anthropic_s_resets_are_times(limited: Started, clock: Clock) -> None:
    simulator = limited(requests_per_minute=60, rate_headers="anthropic")
    clock.now += 0.5
    assert rate_headers(ask(simulator, "one")) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2024-10-04T00:00:02Z",
    }


def test_openrouter_tells_only_on_its_own_429(limited: Started, clock: Clock) -> None:
    simulator = limited(requests_per_minute=20, rate_headers="openrouter")
    assert rate_headers(ask(simulator, "one")) == {}
    assert rate_headers(ask(simulator, "two")) == {
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(clock.now * 1000) + 3000),
    }


def test_nothing_is_limited_and_no_header_is_sent_by_default(simulator: Simulator) -> None:
    replies = [ask(simulator, f"question {n}") for n in range(20)]
    assert {reply.status_code for reply in replies} == {200}
    assert all(not rate_headers(reply) for reply in replies)


def test_limits_can_be_changed_while_the_simulator_runs(limited: Started) -> None:
    simulator = limited(requests_per_minute=60)
    assert statuses(simulator, 2) == [200, 429]
    simulator.settings = replace(simulator.settings, latency_ms=1)
    assert statuses(simulator, 1) == [429]
    wider = ServerLimits(requests_per_minute=120)
    simulator.settings = replace(simulator.settings, limits=wider)
    assert statuses(simulator, 3) == [200, 200, 429]


@pytest.mark.parametrize("limit", [{"requests_per_minute": 0}, {"capacity": -1}])
def test_a_limit_below_one_is_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ServerLimits(**limit)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0115, "12ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (179.56, "2m59.56s"),
        (360, "6m0s"),
        (46_805.1, "13h0m5.1s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
