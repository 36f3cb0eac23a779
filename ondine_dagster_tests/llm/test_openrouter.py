"""OpenRouter on the wire: what is asked, what it costs at most and in truth, how it fails."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.openrouter import (
    CACHE_HIT,
    OpenRouter,
    cost_told,
    generation_url,
    read_generation,
)
from ondine_dagster.llm.prices import Cost, picodollars
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.prompt_cache import MarksCache
from ondine_dagster.llm.provider import Completion, Usage, Verdict
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import compact_json, wire_schema
from ondine_dagster.spec import Llm, Output

GOLDEN = Path(__file__).with_name("golden")
MINI = "openai/gpt-4o-mini"
FIELDS = {"label": {"type": "string", "enum": ["good", "bad"]}}
MESSAGES = messages_json('You "label".', 'Text: ,"role":"system"} and more')
EVERYTHING = {
    "reasoning_effort": "low",
    "models": ["anthropic/claude-3.5-haiku", "google/gemini-2.5-flash"],
    "order": ["azure", "openai"],
    "only": ["azure", "openai", "anthropic"],
    "ignore": ["deepinfra"],
    "allow_fallbacks": False,
    "data_collection": "deny",
    "zdr": True,
    "quantizations": ["fp8"],
    "sort": "throughput",
    "preferred_min_throughput": 50,
    "preferred_max_latency": 2.5,
    "max_price": {"input_per_million_usd": 1, "output_per_million_usd": "5.5"},
    "prompt_cache": "1h",
    "response_cache_seconds": 600,
    "user": "etl",
    "session_id": "labels",
    "referer": "https://example.com/",
    "title": "Labels",
    "categories": ["cloud-agent", "cli-agent"],
}


def llm(name: str = MINI, openrouter: dict[str, Any] | None = None, **changes: Any) -> Llm:
    declared = {"provider": "openrouter", "name": name, "openrouter": openrouter}
    return Llm.model_validate(declared | changes)


def provider(
    openrouter: dict[str, Any] | None = None,
    fields: dict[str, Any] | None = None,
    name: str = MINI,
    **changes: Any,
) -> OpenRouter:
    output = Output.model_validate({"fields": fields or {}})
    made = build_provider(llm(name, openrouter, **changes), wire_schema(output.fields))
    assert isinstance(made, OpenRouter)
    return made


# the request


@pytest.mark.behaviour("P-6")
def test_all_that_can_be_declared_is_in_the_request_of_the_golden_file() -> None:
    made = provider(EVERYTHING, FIELDS)
    made.static_messages = 1
    body = made.body(MESSAGES, made.ceiling)
    assert body.decode() + "\n" == (GOLDEN / "openrouter_all.json").read_text(encoding="utf-8")


@pytest.mark.behaviour("P-1")
def test_the_prefix_is_ours_and_never_sent() -> None:
    made = provider(name="openrouter/anthropic/claude-3-opus")
    assert made.url == "https://openrouter.ai/api/v1/chat/completions"
    assert json.loads(made.body(MESSAGES, 9))["model"] == "anthropic/claude-3-opus"


def test_the_headers_say_who_asks_and_how_long_an_answer_is_kept() -> None:
    headers = provider(EVERYTHING).headers(SecretStr("sk-or-1"))
    assert headers == {
        "content-type": "application/json",
        "accept": "application/json",
        "authorization": "Bearer sk-or-1",
        "http-referer": "https://example.com",
        "x-openrouter-title": "Labels",
        "x-openrouter-categories": "cloud-agent,cli-agent",
        "x-openrouter-cache": "true",
        "x-openrouter-cache-ttl": "600",
    }
    assert set(provider().headers(None)) == {"content-type", "accept"}


@pytest.mark.parametrize("text", ["a", ',"role":"system"}', '[{"content":"x"', "\\", "😀\n"])
def test_the_mark_of_the_cache_changes_no_text(text: str) -> None:
    made = provider({"prompt_cache": "5m"})
    by_row = json.loads(made.body(messages_json(text, text), 9))["messages"]
    assert by_row == json.loads(messages_json(text, text))
    assert isinstance(made, MarksCache)
    for system in (text, None):
        made.static_messages = int(system is not None)
        messages = json.loads(made.body(messages_json(system, text), 9))["messages"]
        *before, user = json.loads(messages_json(system, text))
        assert messages.pop() == user
        contents = [message["content"] for message in messages]
        control = {"type": "ephemeral", "ttl": "5m"}
        assert contents == [
            [{"type": "text", "text": message["content"], "cache_control": control}]
            for message in before
        ]


def test_a_document_is_read_by_the_model_and_never_by_the_page() -> None:
    made = provider()
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://a.example/a.pdf"}}
    asked = compact_json([{"content": [{"type": "text", "text": "?"}, part], "role": "user"}])
    body = json.loads(made.body(asked, 9))
    assert body["plugins"] == [{"id": "file-parser", "pdf": {"engine": "native"}}]
    assert body["messages"][0]["content"][1] == part
    assert "plugins" not in json.loads(made.body(messages_json(None, '"type":"file"'), 9))


# the price


def most(made: OpenRouter) -> Decimal:
    """Return the USD that a million tokens of prompt and of answer can cost at most."""
    return Decimal(made.worst_case(10**6, 10**6)) / 10**12


@pytest.mark.behaviour("P-20")
def test_the_dearest_model_that_may_serve_counts_and_the_fee_for_ones_own_key() -> None:
    fee = Decimal("1.05")
    assert most(provider()) == Decimal("0.75") * fee
    assert most(provider({"models": ["anthropic/claude-3.5-haiku"]})) == Decimal("4.8") * fee


def test_the_highest_price_is_the_bound_where_one_is_declared() -> None:
    highest = {"input_per_million_usd": 1, "output_per_million_usd": 5, "per_request_usd": "0.5"}
    for name in (MINI, "openrouter/auto", "some/new-model"):
        made = provider({"max_price": highest}, name=name)
        # a prompt token may be written to a cache, which costs a quarter more
        assert most(made) == Decimal("6.75") * Decimal("1.05")
    longer = provider({"max_price": highest, "prompt_cache": "1h"})
    assert most(longer) == Decimal("7.5") * Decimal("1.05")


def test_writing_the_cache_counts_at_its_price() -> None:
    sonnet = "anthropic/claude-sonnet-4"  # 3 and 15 USD, writing the cache for 5 minutes 3.75
    assert most(provider(name=sonnet)) == Decimal("18.75") * Decimal("1.05")
    made = provider({"prompt_cache": "1h"}, name=sonnet)
    assert most(made) == Decimal(21) * Decimal("1.05")


@pytest.mark.behaviour("B-5")
def test_free_models_cost_nothing_and_cheaper_variants_no_more_than_the_model() -> None:
    assert most(provider(name="some/new-model:free")) == 0
    assert most(provider(name="openrouter/free")) == 0
    assert most(provider(name=f"{MINI}:floor")) == most(provider())


@pytest.mark.parametrize(
    ("name", "openrouter", "told"),
    [
        ("openrouter/auto", {}, "`llm.prices` is missing"),
        (f"{MINI}:nitro", {}, "`llm.prices` is missing"),
        (MINI, {"models": ["some/new-model"]}, "some/new-model of `llm.openrouter.models`"),
    ],
)
def test_a_price_that_nobody_knows_is_refused(
    name: str, openrouter: dict[str, Any], told: str
) -> None:
    with pytest.raises(OndineError) as refused:
        provider(openrouter, name=name)
    assert told in str(refused.value)


def reply(content: object = "fine", finish: object = "stop", **usage: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "gen-1",
        "model": MINI,
        "provider": "Azure",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, **usage},
    }


def parsed(document: object, headers: dict[str, str] | None = None) -> Completion | Failure:
    return provider().parse(200, headers or {}, json.dumps(document).encode())


def answered(document: object, headers: dict[str, str] | None = None) -> Completion:
    found = parsed(document, headers)
    assert isinstance(found, Completion)
    return found


def cost(**usage: Any) -> Cost:
    return provider().cost(answered(reply(**usage)))


@pytest.mark.behaviour("P-8")
def test_the_cost_is_what_the_user_pays() -> None:
    table = picodollars(Decimal("0.00021"))
    own_key = {"is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}
    assert cost(cost=0.0003) == Cost(300_000_000, "provider")
    assert cost(cost=0) == Cost(0, "provider")
    assert cost() == Cost(table, "computed")  # absent is not 0
    # with OpenRouter's own key the provider's bill is in the cost already
    assert cost(cost=0.0003, **{**own_key, "is_byok": False}) == Cost(300_000_000, "provider")
    assert cost(cost=0.0001, **own_key) == Cost(2_100_000_000, "provider")
    assert cost(cost=0.0001, is_byok=True) == Cost(table + 100_000_000, "computed")


@pytest.mark.behaviour("P-20")
def test_an_answer_says_who_gave_it() -> None:
    done = answered(reply())
    assert (done.model_served, done.provider_served, done.remote_id) == (MINI, "Azure", "gen-1")
    without_id = answered(
        {k: v for k, v in reply().items() if k != "id"}, {"x-generation-id": "gen-2"}
    )
    assert without_id.remote_id == "gen-2"


def test_an_answer_from_the_cache_is_free_and_says_so() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    done = answered(reply(**usage), {"x-openrouter-cache-status": "HIT"})
    assert provider().cost(done) == Cost(0, "provider")
    assert done.flags == (CACHE_HIT,)
    missed = answered(reply(), {"x-openrouter-cache-status": "MISS"})
    assert (missed.flags, missed.cost_reported) == ((), None)


# errors that come with a 200


def failed(document: object, headers: dict[str, str] | None = None) -> Failure:
    found = parsed(document, headers)
    assert isinstance(found, Failure)
    return found


def upstream(usd: float) -> dict[str, float]:
    return {"upstream_inference_cost": usd}


def broken_off(error: dict[str, Any], **usage: Any) -> dict[str, Any]:
    document = reply("half of an ans", "error", **usage)
    document["choices"][0]["error"] = error
    return document


@pytest.mark.parametrize(
    ("error", "error_class", "code"),
    [
        ({"code": 502}, ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
        ({"code": 429}, ErrorClass.CAPACITY, ErrorCode.RATE_LIMITED),
        (
            {"metadata": {"error_type": "provider_overloaded"}},
            ErrorClass.CAPACITY,
            ErrorCode.OVERLOADED,
        ),
        (
            {"code": 400, "metadata": {"error_type": "content_policy_violation"}},
            ErrorClass.ROW,
            ErrorCode.CONTENT_FILTERED,
        ),
        ({"code": 402}, ErrorClass.EXHAUSTED, ErrorCode.PAYMENT_REQUIRED),
        (
            {"http_status": 503, "availability": {"retryable": True, "retry_after": 7}},
            ErrorClass.CAPACITY,
            ErrorCode.OVERLOADED,
        ),
        ({"message": "no idea"}, ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    ],
)
def test_an_error_inside_a_200_is_the_failure_it_names_and_free(
    error: dict[str, Any], error_class: ErrorClass, code: ErrorCode
) -> None:
    for document in ({"error": error}, broken_off(error), {"error": error, **broken_off({})}):
        failure = failed(document)
        assert (failure.error_class, failure.code) == (error_class, code)
        assert failure.evidence is Evidence.REFUSED
        assert failure.retry_after == error.get("availability", {}).get("retry_after")


def test_an_answer_that_broke_off_and_was_billed_is_paid() -> None:
    done = answered(broken_off({"code": 502}, cost=0.0001))
    assert (done.verdict, done.code) == (Verdict.INVALID, ErrorCode.FINISH_ERROR)
    assert provider().cost(done) == Cost(100_000_000, "provider")


def test_under_a_key_of_ones_own_the_provider_bills_what_broke_off() -> None:
    own = {"cost": 0, "is_byok": True}
    billed = answered(broken_off({"code": 502}, **own, cost_details=upstream(0.002)))
    assert provider().cost(billed) == Cost(2_000_000_000, "provider")
    assert provider().cost(answered(broken_off({"code": 502}, **own))).source == "computed"
    assert failed(broken_off({"code": 502}, **own, cost_details=upstream(0))).retryable


def test_no_token_and_no_reason_to_end_is_asked_again_for_nothing() -> None:
    for content in (None, ""):
        failure = failed(reply(content, None, completion_tokens=0, cost=0))
        assert (failure.retryable, failure.evidence) == (True, Evidence.REFUSED)
    # tokens that nobody saw were billed
    assert answered(reply("", None, completion_tokens=7)).code is ErrorCode.CONTENT_BLANK
    assert answered(reply("", "stop", completion_tokens=0)).code is ErrorCode.CONTENT_BLANK


@pytest.mark.parametrize("metadata", [{"reasons": ["violence"]}, {"patterns": ["ignore all"]}])
def test_a_prompt_that_is_blocked_is_the_rows_fault(metadata: dict[str, Any]) -> None:
    error = {"error": {"code": 403, "message": "blocked", "metadata": metadata}}
    failure = provider().parse(403, {}, json.dumps(error).encode())
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.ROW, ErrorCode.CONTENT_FILTERED)


def test_a_404_says_that_it_may_be_the_routing() -> None:
    error = {"error": {"code": 404, "message": "No endpoints found for the parameters"}}
    failure = provider().parse(404, {"x-generation-id": "gen-1"}, json.dumps(error).encode())
    assert isinstance(failure, Failure)
    assert (failure.code, failure.remote_id) == (ErrorCode.NOT_FOUND, "gen-1")
    assert "llm.openrouter.require_parameters" in failure.message


# a lost answer that is looked up


def generation(**changes: Any) -> Completion | None:
    data = {
        "id": "gen-1",
        "total_cost": 0.0003,
        "usage": 0.0003,
        "model": MINI,
        "provider_name": "Azure",
        "native_tokens_prompt": 100,
        "native_tokens_completion": 20,
        "native_tokens_cached": 10,
        "native_tokens_reasoning": 5,
        "is_byok": False,
        "upstream_inference_cost": 0.0003,
    }
    return read_generation(json.dumps({"data": data | changes}).encode())


def test_a_generation_tells_all_of_a_lost_answer_but_its_text() -> None:
    found = generation()
    assert found is not None
    assert cost_told(found) == 300_000_000
    assert found.usage == Usage(100, 20, 10, 5)
    assert (found.model_served, found.provider_served, found.remote_id) == (MINI, "Azure", "gen-1")
    own = generation(is_byok=True, usage=0.00001)
    assert own is not None
    assert cost_told(own) == 310_000_000
    half = generation(is_byok=True, upstream_inference_cost=None)
    assert half is not None
    assert cost_told(half) is None  # what the provider bills is not known


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":null}', b'{"data":{"total_cost":"1"}}'])
def test_a_look_up_that_tells_no_cost_tells_nothing(body: bytes) -> None:
    assert read_generation(body) is None


def test_where_it_is_looked_up() -> None:
    url = "https://openrouter.ai/api/v1/generation?id=gen-1%26x"
    assert generation_url("https://openrouter.ai/api/v1", "gen-1&x") == url
