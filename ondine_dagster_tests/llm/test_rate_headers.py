"""Which window is used up, and until when, in every provider's headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ondine_dagster.llm.rate_headers import used_up_for

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def requests_window(remaining: str, reset: str, limit: str = "60") -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        # Go durations
        ("1s", 1),
        ("6m0s", 360),
        ("12ms", 0.012),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("1h0m0.5s", 3600.5),
        ("24h0m0s", 86400),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("5ns", 5e-9),
        (".5s", 0.5),
        ("+2s", 2),
        ("-2s", None),
        ("0s", None),
        # RFC 3339
        ("2026-11-20T12:01:30Z", 90),
        ("2026-11-20T12:01:30.5Z", 90.5),
        ("2026-11-20T14:01:30+02:00", 90),
        ("2026-11-20T12:01:30", 90),
        ("2026-11-20T11:59:00Z", None),
        # epochs
        (str((EPOCH + 90) * 1000), 90),
        (str(EPOCH + 90), 90),
        (str(EPOCH - 90), None),
        # plain numbers
        ("60", 60),
        ("0.25", 0.25),
        (" 60 ", 60),
        ("0", None),
        ("-1", None),
        # garbage
        ("", None),
        ("soon", None),
        ("1s later", None),
        ("1d", None),
        ("s", None),
        ("nan", None),
        ("inf", None),
        ("9" * 500 + "s", None),
        ("2026-13-40T99:00:00Z", None),
        ("\u0663s\ufffd", None),
    ],
)
def test_a_form_of_reset_is_read_or_ignored(reset: str, seconds: float | None) -> None:
    found = used_up_for(requests_window("0", reset), NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("remaining", "limit", "used_up"),
    [
        ("0", "60", True),
        ("0", "unlimited", True),
        ("1", "60", False),
        ("-1", "60", False),
        ("", "60", False),
        ("none", "60", False),
        # Azure: not known
        ("0", "0", False),
        ("0", "-1", False),
        ("-1", "-1", False),
    ],
)
def test_a_window_is_used_up_where_nothing_is_left_of_a_limit(
    remaining: str, limit: str, used_up: bool
) -> None:
    assert used_up_for(requests_window(remaining, "5s", limit), NOW) == (5 if used_up else None)


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
        ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
        ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
        ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
        ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ],
)
def test_every_window_of_every_dialect_is_read(remaining: str, reset: str) -> None:
    assert used_up_for({remaining: "0", reset: "2026-11-20T12:00:07Z"}, NOW) == 7
    assert used_up_for({remaining: "3", reset: "2026-11-20T12:00:07Z"}, NOW) is None
    assert used_up_for({remaining: "0"}, NOW) is None
    assert used_up_for({reset: "2026-11-20T12:00:07Z"}, NOW) is None


def test_of_several_used_up_windows_the_last_renewal_counts() -> None:
    headers = requests_window("0", "3s") | {
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "9s",
        "anthropic-ratelimit-tokens-remaining": "1",
        "anthropic-ratelimit-tokens-reset": "2026-11-20T13:00:00Z",
    }
    assert used_up_for(headers, NOW) == 9


def test_without_a_header_nothing_is_used_up() -> None:
    assert used_up_for({}) is None
    assert used_up_for({"content-type": "application/json", "retry-after": "3"}) is None
