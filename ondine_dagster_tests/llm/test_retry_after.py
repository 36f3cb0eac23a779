"""Every form in which a provider says how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ondine_dagster.llm.retry_after import retry_after_seconds

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@pytest.mark.behaviour("P-10")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0.25", 0.25),
        ("0", 0),
        (" 5 ", 5),
        ("-3", 0),
        ("-0.5", 0),
        ("86400", 86400),
        ("1e300", 1e300),  # huge, and for the engine to cap
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90),
        ("Fri, 20 Nov 2026 12:01:30 -0000", 90),
        ("Fri, 20 Nov 2026 14:01:30 +0200", 90),
        ("Friday, 20-Nov-26 12:01:30 GMT", 90),
        ("Fri Nov 20 12:01:30 2026", 90),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        (
            "Fri, 20 Nov 9999 11:00:00 GMT",
            (datetime(9999, 11, 20, 11, tzinfo=UTC) - NOW).total_seconds(),
        ),
        ("soon", None),
        ("", None),
        ("   ", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("3, 3", None),
        (";", None),
        ("Fri, 20 Nov 2026 99:00:00 GMT", None),
        ("Fri, 20 Nov 99999 12:00:00 GMT", None),
        ("Fri, 20 Nov 2026 12:00:00 +99999999999999999999", None),
        ("\u0663\ufffd", None),
    ],
)
def test_a_form_is_read_or_ignored(text: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after-ms": "-1"}, 0),
        ({"retry-after-ms": "0", "retry-after": "7"}, 0),
        ({"retry-after-ms": "250.5"}, 0.2505),
        ({"retry-after-ms": "nan", "retry-after": "soon"}, None),
    ],
)
def test_milliseconds_win_over_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds
