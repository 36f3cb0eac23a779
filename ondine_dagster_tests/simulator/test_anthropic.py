"""The simulator in the shape of Anthropic's Messages API: what it takes, answers and bills."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from ondine_dagster.llm.prices import Prices
from ondine_dagster.simulator import CATALOGUE, ServerLimits, Simulator, prompt_sha256
from ondine_dagster.simulator.dialects.anthropic import Anthropic
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster_tests.simulator.clients import SCHEMA, Clock

OUTPUT = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative"]}, "summary": {"type": "string"}},
    "required": ["label", "summary"],
    "additionalProperties": False,
}
LONG = "Label the text. " * 200  # 800 tokens


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(shape="anthropic") as running:
        yield running


def ask(simulator: Simulator, text: str, **extra: Any) -> httpx.Response:
    headers = {"anthropic-version": "2023-06-01", "x-api-key": extra.pop("key", "sk-ant-1")}
    message = {"role": "user", "content": text}
    body = {"model": "claude-x", "max_tokens": 500, "messages": [message], **extra}
    return httpx.post(f"{simulator.base_url}/messages", json=body, headers=headers)


def marked(text: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", **more}}]


def wanted(schema: dict[str, Any]) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "schema": schema}}


def error(response: httpx.Response) -> Any:
    assert response.headers["request-id"]
    document = response.json()
    assert document["type"] == "error"
    assert document["request_id"]
    return document["error"]


# requests and answers


def test_a_message_is_answered_in_text(simulator: Simulator) -> None:
    response = ask(simulator, "I love it.", system="Be brief.")
    message = response.json()
    assert (message["type"], message["role"], message["model"]) == (
        "message",
        "assistant",
        "claude-x",
    )
    assert [block["type"] for block in message["content"]] == ["text"]
    assert message["stop_reason"] == "end_turn"
    assert response.headers["request-id"]
    both = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "I love it."}]
    assert list(simulator.bill.snapshot().prompts) == [prompt_sha256(both)]


def test_fields_are_answered_as_text_or_as_the_arguments_of_a_forced_tool(
    simulator: Simulator,
) -> None:
    by_format = ask(simulator, "I love it.", output_config=wanted(OUTPUT)).json()
    tool = {"name": "answer", "input_schema": SCHEMA}
    choice = {"type": "tool", "name": "answer"}
    by_tool = ask(simulator, "I love it.", tools=[tool], tool_choice=choice).json()
    assert json.loads(by_format["content"][0]["text"])["label"] == "positive"
    assert (by_tool["content"][0]["input"]["label"], by_tool["stop_reason"]) == (
        "positive",
        "tool_use",
    )


def test_a_ceiling_cuts_text_and_arguments(simulator: Simulator) -> None:
    tool = {"name": "answer", "input_schema": SCHEMA}
    choice = {"type": "tool", "name": "answer"}
    text = ask(simulator, "I love it.", max_tokens=1).json()
    arguments = ask(simulator, "x", max_tokens=1, tools=[tool], tool_choice=choice).json()
    assert text["stop_reason"] == arguments["stop_reason"] == "max_tokens"
    assert arguments["content"][0]["input"] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: must be"),
        ({"model": None}, "model: Field required"),
        ({"messages": []}, "messages: at least one"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: content"),
        ({"system": ""}, "system: text content blocks"),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"temperature": 0, "top_p": 0.5}, "cannot both be specified"),
        ({"seed": 7}, "seed: Extra inputs are not permitted"),
        ({"response_format": {}}, "response_format: Extra inputs"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "not among the tools"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "a schema is required"),
        ({"output_config": wanted({"type": "object", "properties": {}})}, "additionalProperties"),
        (
            {"output_config": wanted(OUTPUT | {"properties": {"n": {"minimum": 1}}})},
            "n: minimum is not supported",
        ),
        (
            {
                "output_config": wanted(
                    OUTPUT | {"properties": {"a": {"enum": ["x", None], "type": ["string"]}}}
                )
            },
            "does not match declared type",
        ),
        (
            {
                "output_config": wanted(
                    OUTPUT | {"properties": {f"f{n}": {"type": "string"} for n in range(25)}}
                )
            },
            "Schema is too complex",
        ),
    ],
)
def test_what_the_messages_api_does_not_take_is_refused_in_its_shape(
    simulator: Simulator, change: dict[str, Any], message: str
) -> None:
    response = ask(simulator, "hello", **change)
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"
    assert message in error(response)["message"]
    assert simulator.bill.totals.charged == 0


def test_the_version_is_required_and_the_key_comes_in_either_header(
    simulator: Simulator,
) -> None:
    url, message = f"{simulator.base_url}/messages", [{"role": "user", "content": "hello"}]
    body = {"model": "m", "max_tokens": 9, "messages": message}
    version = {"anthropic-version": "2023-06-01"}
    assert "anthropic-version" in error(httpx.post(url, json=body))["message"]
    for header in ({"x-api-key": "k"}, {"authorization": "Bearer k"}):
        assert httpx.post(url, json=body, headers=version | header).status_code == 200
    assert list(simulator.bill.snapshot().authorizations.values()) == [2]
    assert httpx.post(f"{simulator.url}/v1/chat/completions", json=body).status_code == 404


def test_the_models_are_a_page(simulator: Simulator) -> None:
    page = httpx.get(f"{simulator.base_url}/models").json()
    assert [entry["id"] for entry in page["data"]] == ["demo-model"]
    assert page["has_more"] is False


# the cache


def test_a_marked_system_message_is_written_once_and_read_while_it_is_used() -> None:
    clock = Clock()
    with Simulator(shape="anthropic", clock=clock) as simulator:

        def cached(text: str, seconds: float = 0, **system: Any) -> tuple[int, int, int]:
            clock.now += seconds
            usage = ask(simulator, text, **system).json()["usage"]
            total = simulator.bill.totals.prompt_tokens
            simulator.reset()
            written, read = usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]
            assert total == usage["input_tokens"] + written + read
            return usage["input_tokens"], written, read

        assert cached("a", system=LONG)[1:] == (0, 0)  # not marked
        assert cached("a", system=marked("Be brief."))[1:] == (0, 0)  # too short
        assert cached("a", system=marked(LONG)) == (1, 800, 0)
        assert cached("b", 290, system=marked(LONG)) == (1, 0, 800)
        assert cached("c", 290, system=marked(LONG)) == (1, 0, 800)  # its use made it live on
        assert cached("d", 301, system=marked(LONG)) == (1, 800, 0)
        assert cached("e", system=marked(LONG), model="other") == (1, 800, 0)
        assert cached("f", 301, system=marked(LONG, ttl="1h")) == (1, 800, 0)
        assert cached("g", 3500, system=marked(LONG, ttl="1h")) == (1, 0, 800)


def test_a_request_that_is_refused_leaves_nothing_in_the_cache(simulator: Simulator) -> None:
    texts = ["[[fault=529]] refused", "first", "second"]
    replies = [ask(simulator, text, system=marked(LONG)) for text in texts]
    assert replies[0].status_code == 529
    written = [one.json()["usage"]["cache_creation_input_tokens"] for one in replies[1:]]
    assert written == [800, 0]


@pytest.mark.parametrize(("ttl", "write"), [("5m", "1.25"), ("1h", "2")])
def test_the_cache_has_its_own_prices(ttl: str, write: str) -> None:
    prices = Prices.per_million_usd(Decimal(10), Decimal(0))
    with Simulator(shape="anthropic", prices=prices) as simulator:
        paid = []
        for _ in range(2):
            usage = ask(simulator, "a", system=marked(LONG, ttl=ttl)).json()["usage"]
            paid.append(simulator.bill.totals.picodollars)
            simulator.reset()
        assert usage["cache_creation"] == {
            "ephemeral_5m_input_tokens": 0,
            "ephemeral_1h_input_tokens": 0,
        }
    assert paid == [10_000_000 * (1 + 800 * Decimal(write)), 10_000_000 * (1 + 80)]


# faults


def _stop(message: Any) -> Any:
    return message["stop_reason"]


def _text(message: Any) -> Any:
    return message["content"][0]["text"]


CHECKS: dict[str, Callable[[Any], bool]] = {
    "missing_choices": lambda m: "content" not in m,
    "empty_choices": lambda m: m["content"] == [] and _stop(m) == "end_turn",
    "missing_message": lambda m: m["content"] is None,
    "null_content": lambda m: _text(m) is None,
    "blank_content": lambda m: _text(m).isspace(),
    "non_string_content": lambda m: isinstance(_text(m), dict),
    "wrong_schema": lambda m: "unexpected" in json.loads(_text(m)),
    "broken_content": lambda m: _stop(m) == "end_turn" and not _text(m).endswith("}"),
    "another_answer": lambda m: json.loads(_text(m))["summary"].endswith(" or not"),
    "nan": lambda m: "NaN" in _text(m),
    "duplicate_keys": lambda m: _text(m).count('"label"') == 2,
    "lone_surrogate": lambda m: "\ud83d" in _text(m),
    "escaped_surrogate": lambda m: r"\ud83d" in _text(m),
    "refusal": lambda m: (
        _stop(m) == "refusal" and m["stop_details"]["category"] == "bio" and m["content"] == []
    ),
    "length": lambda m: _stop(m) == "max_tokens",
    "content_filter": lambda m: (
        _stop(m) == "refusal" and m["stop_details"] and m["stop_details"]["category"] is None
    ),
    "tool_calls": lambda m: _stop(m) == "tool_use" and m["content"][0]["name"] == "f",
    "finish_unknown": lambda m: _stop(m) == "solar_flare",
    "finish_missing": lambda m: "stop_reason" not in m,
    "pause_turn": lambda m: _stop(m) == "pause_turn",
    "context_window": lambda m: _stop(m) == "model_context_window_exceeded",
    "missing_usage": lambda m: "usage" not in m,
    "negative_usage": lambda m: m["usage"]["input_tokens"] < 0,
    "float_usage": lambda m: isinstance(m["usage"]["output_tokens"], float),
    "string_usage": lambda m: isinstance(m["usage"]["output_tokens"], str),
    "nan_usage": lambda m: math.isnan(m["usage"]["output_tokens"]),
    "other_model": lambda m: m["model"] == "claude-x-fallback",
}


def test_every_change_of_an_answer_is_checked_here() -> None:
    assert CHECKS.keys() == Anthropic.changes.keys() - PACK_CONTENTS.keys()
    assert Anthropic.changes.keys() <= CATALOGUE.keys()


@pytest.mark.parametrize("fault", CHECKS)
def test_an_answer_has_the_fault_and_is_charged(simulator: Simulator, fault: str) -> None:
    good = ask(simulator, "I love it.", output_config=wanted(OUTPUT)).json()
    bad = ask(simulator, f"I love it. [[fault={fault}]]", output_config=wanted(OUTPUT)).json()
    assert CHECKS[fault](bad)
    assert _fails(CHECKS[fault], good)  # the check can fail
    assert simulator.bill.totals.charged == 2


def _fails(check: Callable[[Any], bool], message: Any) -> bool:
    try:
        return not check(message)
    except (KeyError, TypeError):
        return True


@pytest.mark.parametrize("fault", ["null_content", "wrong_schema", "broken_content", "nan"])
def test_the_arguments_of_a_tool_have_faults_of_content_too(
    simulator: Simulator, fault: str
) -> None:
    tools = [{"name": "answer", "input_schema": SCHEMA}]
    choice = {"type": "tool", "name": "answer"}
    text = f"I love it. [[fault={fault}]]"
    block = ask(simulator, text, tools=tools, tool_choice=choice).json()["content"][0]
    assert not isinstance(block["input"], dict) or "label" not in block["input"] or fault == "nan"
    if fault == "nan":
        assert math.isnan(block["input"]["score"])


ERRORS: dict[str, tuple[int, str]] = {
    "context_length": (400, "prompt is too long"),
    "content_policy": (400, "Output blocked"),
    "insufficient_quota": (400, "Your credit balance is too low"),
    "spend_limit": (400, "You have reached your specified API usage limits"),
    "401": (401, "authentication_error"),
    "402": (402, "billing_error"),
    "403": (403, "permission_error"),
    "404": (404, "not_found_error"),
    "409": (409, "conflict_error"),
    "413": (413, "request_too_large"),
    "429": (429, "rate_limit_error"),
    "429 code=contract_spend_limit_reached": (429, "contract_spend_limit_reached"),
    "enforced_spend_limit": (429, "enforced_spend_limit_reached"),
    "500": (500, "api_error"),
    "504": (504, "timeout_error"),
    "529 retry_after=3": (529, "overloaded_error"),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_an_error_is_in_the_shape_of_the_messages_api_and_costs_nothing(
    simulator: Simulator, fault: str
) -> None:
    response = ask(simulator, f"hello [[fault={fault}]]")
    status, says = ERRORS[fault]
    assert (response.status_code, response.json()["type"]) == (status, "error")
    assert says in json.dumps(response.json()["error"])
    assert simulator.bill.totals.charged == 0


def test_a_wrong_key_is_an_authentication_error() -> None:
    with Simulator(shape="anthropic", api_key="right") as simulator:
        assert error(ask(simulator, "hello", key="wrong"))["type"] == "authentication_error"
        assert ask(simulator, "hello", key="right").status_code == 200


def test_limits_are_told_in_anthropic_s_headers_without_being_asked() -> None:
    clock = Clock()
    limits = ServerLimits(requests_per_minute=60)
    with Simulator(shape="anthropic", limits=limits, clock=clock) as simulator:
        good, refused = ask(simulator, "one"), ask(simulator, "two")
    assert (good.status_code, refused.status_code) == (200, 429)
    assert error(refused)["type"] == "rate_limit_error"
    assert "details" not in error(refused)
    reset = datetime.fromtimestamp(clock.now + 1, UTC)
    assert good.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert good.headers["anthropic-ratelimit-requests-reset"] == f"{reset:%Y-%m-%dT%H:%M:%SZ}"
