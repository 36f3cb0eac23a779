"""Faults that have a reply: what the client reads, and whether it is charged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ondine_dagster.simulator import CATALOGUE, Simulator
from ondine_dagster.simulator.chat import BadRequest
from ondine_dagster.simulator.dialects.openai import OpenAI
from ondine_dagster.simulator.faults import parse_fault
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster_tests.simulator.clients import SCHEMA, ask, content


def _choice(response: httpx.Response) -> Any:
    return response.json()["choices"][0]


def _usage(response: httpx.Response) -> Any:
    return response.json()["usage"]["prompt_tokens"]


def _no_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


# One line per fault that answers with 200: what must be true of the reply.
CHECKS: dict[str, Callable[[httpx.Response], bool]] = {
    "error_in_200": lambda r: r.json()["error"]["code"] == 502 and "choices" not in r.json(),
    "malformed_json": lambda r: r.text.startswith("{") and _no_json(r.text),
    "empty_body": lambda r: r.content == b"",
    "html_200": lambda r: r.text.startswith("<html>"),
    "not_an_object": lambda r: isinstance(r.json(), list),
    "missing_choices": lambda r: "choices" not in r.json(),
    "empty_choices": lambda r: r.json()["choices"] == [],
    "missing_message": lambda r: "message" not in _choice(r),
    "null_content": lambda r: content(r) is None,
    "blank_content": lambda r: content(r).isspace(),
    "non_string_content": lambda r: isinstance(content(r), dict),
    "wrong_schema": lambda r: not SCHEMA["properties"].keys() & json.loads(content(r)).keys(),
    "broken_content": lambda r: _no_json(content(r)) and _choice(r)["finish_reason"] == "stop",
    "another_answer": lambda r: "or not" in content(r) and not _no_json(content(r)),
    "nan": lambda r: math.isnan(json.loads(content(r))["score"]),
    "duplicate_keys": lambda r: content(r).count('"label"') == 2,
    "lone_surrogate": lambda r: "\ud83d" in content(r) and rb"\ud83d" in r.content,
    "escaped_surrogate": lambda r: r"\ud83d" in content(r) and "\ud83d" not in content(r),
    "refusal": lambda r: content(r) is None and bool(_choice(r)["message"]["refusal"]),
    "length": lambda r: _choice(r)["finish_reason"] == "length" and _no_json(content(r)),
    "content_filter": lambda r: _choice(r)["finish_reason"] == "content_filter",
    "tool_calls": lambda r: bool(_choice(r)["message"]["tool_calls"]) and content(r) is None,
    "finish_error": lambda r: (
        _choice(r)["finish_reason"] == "error" and _choice(r)["error"]["code"] == 502
    ),
    "finish_unknown": lambda r: _choice(r)["finish_reason"] not in (None, "stop", "length"),
    "finish_missing": lambda r: "finish_reason" not in _choice(r) and bool(content(r)),
    "missing_usage": lambda r: "usage" not in r.json(),
    "negative_usage": lambda r: _usage(r) < 0,
    "float_usage": lambda r: isinstance(_usage(r), float),
    "string_usage": lambda r: isinstance(_usage(r), str),
    "nan_usage": lambda r: math.isnan(_usage(r)),
    "zero_cost": lambda r: r.json()["usage"]["cost"] == 0,
    "negative_cost": lambda r: r.json()["usage"]["cost"] < 0,
    "string_cost": lambda r: isinstance(r.json()["usage"]["cost"], str),
    "other_model": lambda r: r.json()["model"] == "m-fallback",
}

ERRORS = {
    "401": (401, "invalid_api_key"),
    "404": (404, "model_not_found"),
    "429": (429, "rate_limit_exceeded"),
    "500": (500, None),
    "503": (503, "server_is_overloaded"),
    "529": (529, None),
    "context_length": (400, "context_length_exceeded"),
    "content_policy": (400, "content_filter"),
    "insufficient_quota": (429, "insufficient_quota"),
}


_BUDGET = "openrouter_in_flight_budget"

# One line per error of a real provider: its status, and what stands where in its `error`.
REAL_ERRORS: dict[str, tuple[int, Callable[[Any], bool]]] = {
    "402": (402, lambda e: e["type"] == "invalid_request_error" and e["code"] is None),
    "402 code=in_flight_budget retry_after=2": (
        402,
        lambda e: e["code"] == 402 and e["metadata"] == {"limit_source": _BUDGET},
    ),
    "402 code=credits": (402, lambda e: e["metadata"] == {"limit_source": "openrouter_credits"}),
    "403": (403, lambda e: "metadata" not in e),
    "403 code=key_limit": (
        403,
        lambda e: (
            e["metadata"]["limit_source"] == "openrouter_key_limit" and e["metadata"]["resets_at"]
        ),
    ),
    "403 code=workspace_budget": (
        403,
        lambda e: e["metadata"]["limit_source"] == "openrouter_workspace_budget",
    ),
    "moderation": (403, lambda e: e["metadata"]["reasons"] and e["metadata"]["flagged_input"]),
    "openrouter status=400 code=context_length_exceeded": (
        400,
        lambda e: e["code"] == 400 and e["metadata"] == {"error_type": "context_length_exceeded"},
    ),
    "availability code=capacity_exhausted retry_after=3": (
        429,
        lambda e: (
            "code" not in e
            and e["http_status"] == 429
            and e["availability"]
            == {"code": "capacity_exhausted", "retryable": True, "retry_after": 3}
        ),
    ),
    "availability code=no_endpoints": (404, lambda e: not e["availability"]["retryable"]),
    "429 code=organization_spend_limit_exceeded": (
        429,
        lambda e: (
            e["code"] == "organization_spend_limit_exceeded" and e["type"] == "insufficient_quota"
        ),
    ),
    "anthropic": (529, lambda e: e["type"] == "overloaded_error" and "code" not in e),
    "anthropic status=429 retry_after=1": (429, lambda e: e["type"] == "rate_limit_error"),
    "spend_limit": (400, lambda e: e["message"].startswith("You have reached your specified API")),
    "enforced_spend_limit": (
        429,
        lambda e: e["details"] == {"error_code": "enforced_spend_limit_reached"},
    ),
    "azure_content_filter": (
        400,
        lambda e: (
            e["code"] == "content_filter"
            and e["innererror"] == {"code": "ResponsibleAIPolicyViolation"}
        ),
    ),
}


@pytest.mark.parametrize("fault", REAL_ERRORS)
def test_an_error_of_a_real_provider_looks_like_it_and_costs_nothing(
    simulator: Simulator, fault: str
) -> None:
    response = ask(simulator, f"hello [[fault={fault}]]")
    status, check = REAL_ERRORS[fault]
    assert response.status_code == status
    assert check(response.json()["error"])
    assert response.headers.get("retry-after") == parse_fault(fault).retry_after
    assert (simulator.bill.totals.charged, simulator.bill.totals.refused) == (0, 1)


def test_an_error_in_200_takes_a_code_and_a_type(simulator: Simulator) -> None:
    response = ask(simulator, "[[fault=error_in_200 status=429 code=rate_limit_exceeded]]")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (200, 429)
    assert error["metadata"] == {"error_type": "rate_limit_exceeded"}


@pytest.mark.parametrize("fault", CHECKS)
def test_a_reply_with_status_200_has_the_fault_and_costs_what_it_should(
    simulator: Simulator, fault: str
) -> None:
    response = ask(simulator, f"I love it. [[fault={fault}]]", schema=SCHEMA)
    assert response.status_code == 200
    assert CHECKS[fault](response)
    totals = simulator.bill.totals
    charged = int(fault != "error_in_200")
    assert (totals.charged, totals.answered, totals.refused) == (charged, charged, 1 - charged)


@pytest.mark.parametrize("fault", ERRORS)
def test_an_error_status_has_the_provider_s_json_and_costs_nothing(
    simulator: Simulator, fault: str
) -> None:
    response = ask(simulator, f"hello [[fault={fault}]]")
    status, code = ERRORS[fault]
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    totals = simulator.bill.totals
    assert (totals.requests, totals.charged, totals.refused) == (1, 0, 1)


def test_every_fault_of_the_catalogue_is_tested_here_or_with_a_bare_socket() -> None:
    elsewhere = {"html", "missing_cost", "late"} | PACK_CONTENTS.keys()
    by_reply = CHECKS.keys() | ERRORS.keys() | elsewhere | {text.split()[0] for text in REAL_ERRORS}
    by_socket = {name for name, kind in CATALOGUE.items() if kind.delivery not in ("reply", "late")}
    of_others = {name for name in CATALOGUE if not _is_of_openai(name)}  # tested with their shapes
    assert CATALOGUE.keys() == (by_reply & CATALOGUE.keys()) | by_socket | of_others
    assert not of_others & (by_reply | by_socket)
    assert len(by_socket) == 6


def _is_of_openai(fault: str) -> bool:
    try:
        OpenAI(time.time).refuse_strange(parse_fault(fault))
    except BadRequest:
        return False
    return True


def test_a_late_answer_is_good(simulator: Simulator) -> None:
    started = time.monotonic()
    response = ask(simulator, "[[fault=late seconds=0.2]] [[token=good]]")
    assert time.monotonic() - started >= 0.2
    assert (response.status_code, content(response)) == (200, "good")
    assert simulator.bill.totals.answered == 1
    assert parse_fault("late").late_seconds == 10
    assert parse_fault("429 seconds=3").late_seconds == 0


def test_a_fault_of_another_provider_is_refused(simulator: Simulator) -> None:
    response = ask(simulator, "[[fault=pause_turn]]")
    assert response.status_code == 400
    assert "no fault `pause_turn`" in response.json()["error"]["message"]


def test_a_good_answer_has_none_of_the_faults(simulator: Simulator) -> None:
    """The checks above can fail."""
    response = ask(simulator, "I love it.", schema=SCHEMA)
    for fault, check in CHECKS.items():
        try:
            faulty = check(response)
        except (KeyError, TypeError, AttributeError):
            faulty = False
        assert not faulty, fault


def test_html_errors_are_no_json_and_take_a_status(simulator: Simulator) -> None:
    default = ask(simulator, "[[fault=html]]")
    other = ask(simulator, "[[fault=html status=502]]")
    assert (default.status_code, other.status_code) == (500, 502)
    assert default.headers["content-type"].startswith("text/html")
    assert simulator.bill.totals.charged == 0


@pytest.mark.parametrize(
    "value", ["1", "0.5", "-1", "soon", "3600", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_retry_after_is_sent_literally(simulator: Simulator, value: str) -> None:
    response = ask(simulator, f'[[fault=429 retry_after="{value}"]]')
    assert response.headers["retry-after"] == value


def test_retry_after_ms_and_an_error_code_can_be_given(simulator: Simulator) -> None:
    response = ask(simulator, "[[fault=429 retry_after_ms=250 code=slow_down]]")
    assert response.headers["retry-after-ms"] == "250"
    assert "retry-after" not in response.headers
    assert response.json()["error"]["code"] == "slow_down"


def test_a_marker_with_times_fails_that_often_for_each_prompt(simulator: Simulator) -> None:
    first = [ask(simulator, "one [[fault=500 times=2]]").status_code for _ in range(4)]
    second = [ask(simulator, "two [[fault=500 times=2]]").status_code for _ in range(3)]
    assert first == [500, 500, 200, 200]
    assert second == [500, 500, 200]


def test_a_marker_with_after_lets_that_many_pass_first(simulator: Simulator) -> None:
    text = "[[fault=500 after=2 times=1]]"
    assert [ask(simulator, text).status_code for _ in range(4)] == [200, 200, 500, 200]


def test_an_unreadable_marker_is_refused_and_named(simulator: Simulator) -> None:
    unknown = ask(simulator, "[[fault=earthquake]]")
    broken = ask(simulator, "[[fault=429 times]]")
    assert (unknown.status_code, broken.status_code) == (400, 400)
    assert "unknown fault `earthquake`" in unknown.json()["error"]["message"]
    assert "marker" in broken.json()["error"]["message"]


def test_an_unknown_option_of_a_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown option"):
        parse_fault("429 retries=1")
