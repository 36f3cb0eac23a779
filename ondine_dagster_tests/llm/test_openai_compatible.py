"""The request on the wire, and every way in which a reply can be of use or not."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ondine_dagster.llm.chat_reply import parse_completion
from ondine_dagster.llm.errors import EXPLANATIONS, ErrorCode, Failure
from ondine_dagster.llm.openai_compatible import OpenAICompatible
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Completion, Usage, Verdict
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import Llm, Output

GOLDEN = Path(__file__).with_name("golden")
FIELDS = {
    "label": {"type": "string", "enum": ["positive", "négatif"], "description": 'How it "feels"'},
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False},
    "certainty": {"type": "number", "accept": {"minimum": 0.5}, "column": "certain"},
    "urgent": {"type": "boolean"},
}


def llm(**changes: Any) -> Llm:
    declared: dict[str, Any] = {
        "provider": "openai_compatible",
        "name": "some/model",
        "base_url": "http://127.0.0.1:9/v1/",
        "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
    }
    return Llm.model_validate(declared | changes)


def provider(fields: dict[str, Any] | None = None, **changes: Any) -> OpenAICompatible:
    declared = Output.model_validate({"fields": fields or {}}).fields
    return OpenAICompatible(llm(**changes), wire_schema(declared))


MESSAGES = messages_json('Say "yes".', 'Zeile 1\nZeile 2\t\\ „ж“ 😀 \x00 {"role":"user"}')


# the request


@pytest.mark.behaviour("P-6")
@pytest.mark.parametrize(
    ("golden", "made"),
    [
        ("plain.json", provider()),
        (
            "fields.json",
            provider(
                FIELDS,
                temperature=0,
                top_p=0.9,
                seed=7,
                max_tokens=64,
                max_tokens_field="max_completion_tokens",
            ),
        ),
    ],
)
def test_the_request_is_exactly_the_golden_file(golden: str, made: OpenAICompatible) -> None:
    body = made.body(MESSAGES, made.ceiling)
    assert body.decode() + "\n" == (GOLDEN / golden).read_text(encoding="utf-8")
    assert None not in json.loads(body).values()  # a null ceiling is refused by providers


def test_what_is_local_never_reaches_the_wire() -> None:
    narrow = {**FIELDS, "certainty": {"type": "number"}}
    assert provider(narrow).body(MESSAGES, 9) == provider(FIELDS).body(MESSAGES, 9)


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.5, "fields": FIELDS}])
def test_the_ceiling_is_all_that_differs_when_it_is_raised(changes: dict[str, Any]) -> None:
    made = provider(max_tokens=64, raised_max_tokens=256, **changes)
    assert (made.ceiling, made.raised_ceiling) == (64, 256)
    first, second = (json.loads(made.body(MESSAGES, ceiling)) for ceiling in (64, 256))
    assert (first.pop("max_tokens"), second.pop("max_tokens")) == (64, 256)
    assert first == second
    assert provider().raised_ceiling is None


def test_the_key_is_a_bearer_token_only_where_there_is_one() -> None:
    assert provider().headers(SecretStr("sk-1"))["authorization"] == "Bearer sk-1"
    assert "authorization" not in provider().headers(None)


def test_no_request_counts_more_tokens_than_its_bound() -> None:
    made = provider(FIELDS)
    texts = ["7" * 400, '"role":' * 50, "😀" * 100, "\n" * 100]
    for text in texts:
        messages = messages_json(None, text)
        schema = json.loads(made.body(messages, 64))["response_format"]["json_schema"]["schema"]
        sent = len(text.encode()) + len(json.dumps(schema, ensure_ascii=False).encode())
        assert made.prompt_tokens_bound(messages) >= sent + 16


# a usable reply


def reply(content: object = "fine", finish: object = "stop", **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    } | changes


def read(document: object) -> Completion:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_completion(raw)


@pytest.mark.behaviour("P-7")
@pytest.mark.behaviour("P-15")
def test_an_answer_carries_model_usage_and_id() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "cost": 0.00014,
        "is_byok": True,
        "cost_details": {"upstream_inference_cost": 0.1},
    }
    done = read(reply(usage=usage, provider="Fireworks"))
    assert done == Completion(
        verdict=Verdict.OK,
        text="fine",
        finish_reason="stop",
        usage=Usage(9, 4, 5, 2, 3),
        model_served="served",
        provider_served="Fireworks",
        remote_id="chatcmpl-1",
        cost_reported=140_000_000,
        upstream_cost=10**11,
        is_byok=True,
    )
    with pytest.raises(AttributeError):
        done.text = "other"  # type: ignore[misc]


def test_the_least_reply_that_we_accept_is_flagged_where_it_is_bare() -> None:
    done = read({"choices": [{"message": {"content": "yes"}}]})
    assert (done.verdict, done.text, done.code) == (Verdict.OK, "yes", None)
    assert done.flags == ("usage_missing", "model_missing")


def test_any_2xx_is_a_completion_and_anything_else_a_failure() -> None:
    body = json.dumps(reply()).encode()
    made = provider()
    assert isinstance(made.parse(200, {}, body), Completion)
    assert isinstance(made.parse(201, {}, body), Completion)
    assert isinstance(made.parse(300, {}, body), Failure)
    assert isinstance(made.parse(500, {}, body), Failure)


# a reply of no use


def choice(**changes: Any) -> dict[str, Any]:
    document = reply()
    document["choices"][0].update(changes)
    return document


def message(**changes: Any) -> dict[str, Any]:
    document = reply()
    document["choices"][0]["message"].update(changes)
    return document


BAD, CUT, NO = Verdict.INVALID, Verdict.TRUNCATED, Verdict.REFUSED


@pytest.mark.behaviour("E-12")
@pytest.mark.parametrize(
    ("document", "code", "verdict"),
    [
        (b"", ErrorCode.REPLY_NOT_JSON, BAD),
        (b"<html>", ErrorCode.REPLY_NOT_JSON, BAD),
        (b'{"choices":[', ErrorCode.REPLY_NOT_JSON, BAD),
        (b"[" * 100_000, ErrorCode.REPLY_NOT_JSON, BAD),
        (b'{"a":' * 900 + b'"\\ud83d"' + b"}" * 900, ErrorCode.REPLY_NOT_JSON, BAD),
        (b'{"choices":NaN}', ErrorCode.REPLY_NOT_FINITE, BAD),
        (b'{"choices":[],"usage":{"prompt_tokens":-Infinity}}', ErrorCode.REPLY_NOT_FINITE, BAD),
        (b"[]", ErrorCode.REPLY_NOT_OBJECT, BAD),
        (b'"text"', ErrorCode.REPLY_NOT_OBJECT, BAD),
        (b"null", ErrorCode.REPLY_NOT_OBJECT, BAD),
        ({"error": {"message": "later", "code": 502}}, ErrorCode.REPLY_HAS_ERROR, BAD),
        ({}, ErrorCode.NO_CHOICES, BAD),
        ({"choices": []}, ErrorCode.NO_CHOICES, BAD),
        ({"choices": None}, ErrorCode.NO_CHOICES, BAD),
        ({"choices": {"0": {}}}, ErrorCode.NO_CHOICES, BAD),
        ({"choices": ["text"]}, ErrorCode.NO_CHOICES, BAD),
        ({"choices": [{"finish_reason": "stop"}]}, ErrorCode.NO_MESSAGE, BAD),
        (choice(message="text"), ErrorCode.NO_MESSAGE, BAD),
        (reply(None), ErrorCode.CONTENT_NULL, BAD),
        (message(tool_calls=[{"id": "1"}], content=None), ErrorCode.CONTENT_NULL, BAD),
        (reply({"text": "a"}), ErrorCode.CONTENT_NOT_TEXT, BAD),
        (reply(7), ErrorCode.CONTENT_NOT_TEXT, BAD),
        (reply(""), ErrorCode.CONTENT_BLANK, BAD),
        (reply(" \n\t\u00a0"), ErrorCode.CONTENT_BLANK, BAD),
        (reply('{"a": 1', "length"), ErrorCode.TRUNCATED, CUT),
        (reply(None, "length"), ErrorCode.TRUNCATED, CUT),
        (reply(None, "content_filter"), ErrorCode.CONTENT_FILTERED, NO),
        (reply("half", "content_filter"), ErrorCode.CONTENT_FILTERED, NO),
        (message(content=None, refusal="I cannot"), ErrorCode.REFUSED, NO),
        (reply(None, "tool_calls"), ErrorCode.TOOL_CALLS, BAD),
        (reply(None, "function_call"), ErrorCode.TOOL_CALLS, BAD),
        (reply("half", "error"), ErrorCode.FINISH_ERROR, BAD),
        (reply("text", "solar_flare"), ErrorCode.FINISH_UNKNOWN, BAD),
        (reply("text", ""), ErrorCode.FINISH_UNKNOWN, BAD),
        (reply("text", 5), ErrorCode.FINISH_UNKNOWN, BAD),
    ],
)
def test_each_unusable_reply_has_its_own_code(
    document: object, code: ErrorCode, verdict: Verdict
) -> None:
    done = read(document)
    assert (done.code, done.verdict) == (code, verdict)
    assert code in EXPLANATIONS
    done.text.encode()


def test_the_paid_text_is_kept_though_it_is_of_no_use() -> None:
    assert read(reply("half an ans", "length")).text == "half an ans"
    assert read(message(content=None, refusal="I cannot")).text == "I cannot"
    assert read(b"<html>busy</html>").text == "<html>busy</html>"
    assert json.loads(read(reply(None)).text) == reply(None)


@pytest.mark.behaviour("A-20")
@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [
        (rb'"caf\u00e9 \ud83d\ude00"', "café 😀", ()),
        ('"😀"'.encode(), "😀", ()),
        (rb'"half \ud83d."', "half \ufffd.", ("characters_replaced",)),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd", ("characters_replaced",)),
        (b'"\xed\xa0\xbd"', "\ufffd\ufffd\ufffd", ("characters_replaced",)),
        (b'"\xff ok"', "\ufffd ok", ("characters_replaced",)),
        (b'"\\u0000"', "\x00", ()),
    ],
)
def test_half_characters_are_replaced_and_flagged(
    raw: bytes, text: str, flags: tuple[str, ...]
) -> None:
    body = json.dumps(reply("HERE")).encode().replace(b'"HERE"', raw)
    done = read(body)
    assert (done.verdict, done.text, done.flags) == (Verdict.OK, text, flags)


@pytest.mark.parametrize(
    "count", [None, True, -1, 1.0, 1.5, "5", "NaN", [], {}, 10**10, 10**30, "missing"]
)
def test_a_count_that_is_no_count_is_unknown(count: object) -> None:
    usage: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": count}
    if count == "missing":
        del usage["completion_tokens"]
    done = read(reply(usage=usage))
    assert done.usage == Usage(prompt_tokens=5)
    assert not done.usage.complete
    assert "usage_missing" in done.flags
    assert done.verdict is Verdict.OK


@pytest.mark.parametrize("usage", [None, [], "5", 5])
def test_usage_of_another_shape_is_unknown(usage: object) -> None:
    assert read(reply(usage=usage)).usage == Usage()


def test_the_dearest_answer_fits_the_ledgers_integers() -> None:
    made = provider(prices={"input_per_million_usd": 1000, "output_per_million_usd": 1000})
    done = read(reply(usage={"prompt_tokens": 10**9, "completion_tokens": 10**9}))
    assert done.usage.complete
    cost = made.cost(done).amount
    assert cost is not None
    assert cost < 2**63


@pytest.mark.behaviour("P-7")
def test_a_duplicate_key_takes_its_last_value() -> None:
    body = json.dumps(reply()).encode()[:-1] + b',"model":"second"}'
    assert read(body).model_served == "second"


# what the provider says it billed


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize(
    ("raw", "picodollars"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0.00014", 140_000_000),
        ("1.4e-4", 140_000_000),
        ("0.1", 100_000_000_000),  # not 0.1000000000000000055 rounded up
        ("1e-13", 1),
        ("3", 3 * 10**12),
        ("1000000", 10**18),
    ],
)
def test_a_reported_cost_is_read_digit_by_digit(raw: str, picodollars: int) -> None:
    inside = json.dumps(reply(usage={"cost": 7})).replace("7", raw)
    beside = json.dumps(reply(cost=7)).replace("7", raw)
    for body in (inside, beside):
        done = read(body.encode())
        assert done.cost_reported == picodollars
        assert "cost_unreadable" not in done.flags


def test_the_cost_in_the_usage_counts_before_the_one_beside_it() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    assert read(reply(usage={**usage, "cost": 1}, cost=2)).cost_reported == 10**12
    assert read(reply(usage={**usage, "cost": None}, cost=2)).cost_reported == 2 * 10**12
    assert read(reply(usage={**usage, "cost": "1"}, cost=2)).cost_reported is None


@pytest.mark.parametrize("cost", [-1, -0.01, "0.1", "NaN", True, [], {}, 10**6 + 1, 10**400, 1e300])
def test_a_reported_cost_that_is_no_amount_is_ignored_and_flagged(cost: object) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "cost": cost}
    done = read(reply(usage=usage))
    assert done.cost_reported is None
    assert done.flags == ("cost_unreadable",)
    assert provider().cost(done).source == "computed"


def test_a_cost_that_is_not_reported_is_no_cost_of_nothing() -> None:
    done = read(reply())
    assert (done.cost_reported, done.upstream_cost, done.is_byok) == (None, None, None)
    assert done.provider_served is None
    assert done.flags == ()


def test_prices_of_a_declaration_are_exact() -> None:
    made = provider(prices={"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"})
    assert made.worst_case(10**6, 10**6) == Decimal("0.75") * 10**12
    assert made.cost(read(reply())).amount == 5 * 150_000 + 3 * 600_000
    other = provider(prices={"input_per_million_usd": "0.16", "output_per_million_usd": "0.60"})
    assert made.price_version != other.price_version
