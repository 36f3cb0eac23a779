"""Anthropic: what its requests say, what its replies mean, and what its cache costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.anthropic_reply import parse_message
from ondine_dagster.llm.classify import classify_error
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.prices import Prices
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import compact_json, wire_schema
from ondine_dagster.simulator import ServerLimits, Simulator
from ondine_dagster.spec import Llm, Output, format_errors
from ondine_dagster_tests.engine.harness import Harness, Run, question, questions

MODEL = "claude-haiku-4-5"
SYSTEM = "Label the text. " * 200  # 800 tokens of the simulator
FIELDS = {
    "label": {"type": "string", "enum": ["good", "bad"], "required": False},
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "description": "How good."},
    "share": {"type": "number", "minimum": 0.5},
    "count": {"type": "integer", "minimum": 0, "maximum": 5000, "required": False},
}
_REQUEST: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
PRICES = {"input_per_million_usd": 10, "output_per_million_usd": 50}


def made(fields: Any = None, static: int = 0, **llm: Any) -> Provider:
    declared = {"provider": "anthropic", "name": MODEL, **llm}
    return build_provider(
        Llm.model_validate(declared),
        wire_schema(Output.model_validate({"fields": fields or {}}).fields),
        static_messages=static,
    )


def body(provider: Provider, system: str | None = "Be brief.", user: str = "Hello.") -> Any:
    return json.loads(provider.body(messages_json(system, user), provider.ceiling))


# the request


def test_the_system_message_stands_on_top_where_there_is_one() -> None:
    said = body(made(), 'Say "role":"system"}, {"x"}.')
    assert said["system"] == 'Say "role":"system"}, {"x"}.'
    assert said["messages"] == [{"role": "user", "content": "Hello."}]
    for none in (None, ""):
        assert body(made(), none).keys() == {"model", "messages", "max_tokens"}


def test_a_system_message_is_marked_for_the_cache_where_it_is_the_same_for_all_rows() -> None:
    (block,) = body(made(static=1), "One.")["system"]
    assert block == {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}}
    assert body(made(), "Row 1.")["system"] == "Row 1."


@pytest.mark.parametrize("system", ["One.", None])
def test_the_last_example_ends_what_is_cached(system: str | None) -> None:
    asked = json.loads(messages_json(system, "Row 1."))
    example = [("user", 'Q ","role":"user"},'), ("assistant", "A")]
    asked[-1:-1] = [{"content": text, "role": role} for role, text in example]
    provider = made(static=2 + (system is not None))
    said = json.loads(provider.body(compact_json(asked), 9))
    assert said.get("system") == system
    question, answer, row = said["messages"]
    assert question["content"] == 'Q ","role":"user"},'
    assert answer["content"] == [{"type": "text", "text": "A"} | _with({"type": "ephemeral"})]
    assert row["content"] == "Row 1."


@pytest.mark.parametrize(
    ("cache", "mark"), [("1h", {"type": "ephemeral", "ttl": "1h"}), ("none", None)]
)
def test_how_long_it_is_kept_is_declared(cache: str, mark: Any) -> None:
    system = body(made(static=1, anthropic={"cache": cache}), "One.")["system"]
    assert system == ("One." if mark is None else [{"type": "text", "text": "One."} | _with(mark)])


def _with(mark: Any) -> dict[str, Any]:
    return {"cache_control": mark}


def test_a_schema_says_what_anthropic_takes_and_the_rest_in_words() -> None:
    said = body(made(FIELDS, anthropic={"effort": "low"}))
    assert said["output_config"]["effort"] == "low"
    wanted = said["output_config"]["format"]
    assert wanted["type"] == "json_schema"
    assert wanted["schema"] == {
        "type": "object",
        "properties": {
            "label": {"enum": ["good", "bad"]},
            "stars": {"enum": [1, 2, 3, 4, 5], "description": "How good"},
            "share": {"type": "number", "description": "at least 0.5"},
            "count": {"type": "integer", "description": "at least 0, at most 5000"},
        },
        "required": ["stars", "share"],
        "additionalProperties": False,
    }


def test_effort_and_thinking_are_sent_where_they_are_declared() -> None:
    said = body(made(anthropic={"effort": "max", "thinking": "disabled"}))
    assert said["output_config"] == {"effort": "max"}
    assert said["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("preset", ["claude-haiku", "claude-sonnet", "claude-opus"])
def test_the_presets_think_little_for_a_label(preset: str) -> None:
    llm = Llm.model_validate({"preset": preset})
    said = body(build_provider(llm, {}))
    assert said["output_config"] == {"effort": "low"}


@pytest.mark.parametrize("name", ["claude-3-haiku-20240307", "claude-opus-4-1", "claude-sonnet-4"])
def test_older_models_answer_in_the_arguments_of_a_tool(name: str) -> None:
    said = body(made(FIELDS, name=name, prices=PRICES))
    assert said["tool_choice"]["name"] == said["tools"][0]["name"]
    assert said["tools"][0]["input_schema"]["properties"]["stars"]["maximum"] == 5
    assert "output_config" not in said


@pytest.mark.parametrize("name", ["claude-haiku-4-5-20251001", "claude-sonnet-5", "claude-new-9"])
def test_newer_models_and_those_nobody_knows_take_a_schema(name: str) -> None:
    assert "format" in body(made(FIELDS, name=name, prices=PRICES))["output_config"]


def test_the_schema_goes_into_the_system_message_where_that_is_declared() -> None:
    said = body(made(FIELDS, structured="prompt"))
    assert said["system"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert '"stars"' in said["system"]
    assert said.keys() == {"model", "messages", "system", "max_tokens"}


@pytest.mark.parametrize(
    "llm",
    [
        {},
        {"name": "claude-3-haiku-20240307", "prices": PRICES},
        {"name": "claude-sonnet-5-5", "anthropic": {"effort": "low", "thinking": "between_tools"}},
        {"anthropic": {"cache": "1h"}, "structured": "prompt"},
    ],
)
def test_every_form_of_a_request_is_one_of_anthropics_own_client(llm: dict[str, Any]) -> None:
    provider = made(FIELDS, **llm)
    body(provider)
    marked = body(provider)
    known = MessageCreateParamsNonStreaming.__annotations__.keys()
    assert marked.keys() <= known
    _REQUEST.validate_python(marked)
    with pytest.raises(ValidationError):
        _REQUEST.validate_python(marked | {"thinking": 1})


# what is refused in a declaration


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"temperature": 1.5}, "llm.temperature", "Anthropic takes 0 to 1"),
        ({"seed": 7}, "llm.seed", "no seed"),
        ({"max_tokens_field": "max_completion_tokens"}, "llm.max_tokens_field", "alone"),
        ({"structured": "json_object"}, "llm.structured", "no JSON mode"),
        ({"name": "claude-opus-5", "temperature": 0}, "llm.temperature", "claude-opus-5 takes no"),
        ({"name": "claude-sonnet-5-5", "top_p": 0.9}, "llm.top_p", "takes no top_p"),
        ({"temperature": 0, "top_p": 0.9}, "llm.top_p", "either temperature or top_p"),
        ({"anthropic": {"cache": "2h"}}, "llm.anthropic.cache", "'5m', '1h' or 'none'"),
        ({"provider": "openai", "anthropic": {}}, "llm.anthropic", "is for provider anthropic"),
    ],
)
def test_what_anthropic_does_not_take_is_refused_with_what_to_do(
    change: dict[str, Any], path: str, says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Llm.model_validate({"provider": "anthropic", "name": MODEL, **change})
    (problem,) = format_errors(refused.value)
    assert problem.message.startswith(f"`{path}`")
    assert says in problem.message


def test_what_a_model_takes_is_not_refused() -> None:
    for change in (
        {"name": "claude-opus-5", "temperature": 1},
        {"name": "claude-3-haiku-20240307", "temperature": 0, "top_p": 0.9},
        {"max_tokens_field": "max_tokens", "temperature": 0},
    ):
        Llm.model_validate({"provider": "anthropic", "name": MODEL, **change})


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_fallback_inherits_what_its_model_takes(provider: str) -> None:
    llm = {"provider": provider, "name": MODEL, "temperature": 0, "max_tokens": 77}
    fallback = {"provider": "anthropic", "name": "claude-sonnet-5"}
    second = Llm.model_validate({**llm, "fallback": fallback}).fallback_llm()
    assert second is not None
    assert (second.temperature, second.max_tokens) == (None, 77)
    with pytest.raises(ValidationError, match="takes no temperature"):
        Llm.model_validate({**llm, "fallback": {**fallback, "temperature": 0.5}})


# replies


def reply(content: Any = None, stop: Any = "end_turn", **more: Any) -> bytes:
    content = [{"type": "text", "text": "fine"}] if content is None else content
    usage = {"input_tokens": 5, "output_tokens": 3}
    document = {"id": "msg_1", "type": "message", "model": "served", "content": content}
    return json.dumps(document | {"stop_reason": stop, "usage": usage} | more).encode()


def test_a_message_is_read_whole_without_what_the_model_thought() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    texts = [{"type": "text", "text": text} for text in ("fi", "ne")]
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    read = parse_message(reply([thought, *texts], usage=usage))
    assert (read.verdict, read.text, read.code, read.flags) == (Verdict.OK, "fine", None, ())
    assert (read.model_served, read.remote_id, read.finish_reason) == (
        "served",
        "msg_1",
        "end_turn",
    )
    assert read.usage == Usage(125, 9, 100, 7, 20)


@pytest.mark.parametrize(
    ("usage", "flags"),
    [
        ({"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": None}, ()),
        (
            {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": -1},
            ("usage_missing",),
        ),
        ({"output_tokens": 3}, ("usage_missing",)),
        ({}, ("usage_missing",)),
    ],
)
def test_a_count_that_is_none_leaves_the_usage_unknown(usage: Any, flags: Any) -> None:
    read = parse_message(reply(usage=usage))
    assert read.flags == flags
    assert (read.usage.prompt_tokens is None) == bool(flags)


@pytest.mark.parametrize(
    ("stop", "verdict", "code"),
    [
        ("stop_sequence", Verdict.OK, None),
        (None, Verdict.OK, None),
        ("max_tokens", Verdict.TRUNCATED, ErrorCode.TRUNCATED),
        ("model_context_window_exceeded", Verdict.TRUNCATED, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
        ("refusal", Verdict.REFUSED, ErrorCode.REFUSED),
        ("tool_use", Verdict.INVALID, ErrorCode.TOOL_CALLS),
        ("pause_turn", Verdict.INVALID, ErrorCode.FINISH_UNKNOWN),
    ],
)
def test_a_reason_to_stop_says_what_an_answer_is(
    stop: Any, verdict: Verdict, code: ErrorCode | None
) -> None:
    read = parse_message(reply(stop=stop))
    assert (read.verdict, read.code, read.text) == (verdict, code, "fine")


def test_a_refusal_without_text_tells_why() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "It may do harm."}
    assert parse_message(reply([], "refusal", stop_details=details)).text == "It may do harm."


def test_the_arguments_of_the_tool_are_the_answer_where_it_was_asked_for() -> None:
    use = {"type": "tool_use", "id": "t", "name": "answer", "input": {"label": "good"}}
    read = parse_message(reply([use], "tool_use"), "answer")
    assert (read.verdict, read.text) == (Verdict.OK, '{"label":"good"}')
    cut = parse_message(reply([use | {"input": {}}], "max_tokens"), "answer")
    assert (cut.verdict, cut.code) == (Verdict.TRUNCATED, ErrorCode.TRUNCATED)
    for blocks, tool in (([use], None), ([use | {"name": "f"}], "answer")):
        assert parse_message(reply(blocks, "tool_use"), tool).code is ErrorCode.TOOL_CALLS


@pytest.mark.parametrize(
    ("status", "error", "decision"),
    [
        (
            400,
            {"message": "You have reached your specified API usage limits. They renew on 1 May."},
            (ErrorClass.EXHAUSTED, ErrorCode.QUOTA_EXHAUSTED),
        ),
        (
            400,
            {"message": "Your credit balance is too low to access the Anthropic API."},
            (ErrorClass.EXHAUSTED, ErrorCode.PAYMENT_REQUIRED),
        ),
        (
            400,
            {"message": "input length and `max_tokens` exceed context limit: 199000 + 4000"},
            (ErrorClass.ROW, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
        ),
        (400, {"message": "bad"}, (ErrorClass.CONFIG, ErrorCode.BAD_REQUEST)),
        (
            400,
            {"details": {"error_code": "organization_on_hold"}},
            (ErrorClass.CONFIG, ErrorCode.FORBIDDEN),
        ),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}},
            (ErrorClass.EXHAUSTED, ErrorCode.QUOTA_EXHAUSTED),
        ),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}},
            (ErrorClass.CAPACITY, ErrorCode.RATE_LIMITED),
        ),
    ],
)
def test_spend_limits_stop_the_run_and_ramp_limits_are_waited_for(
    status: int, error: dict[str, Any], decision: tuple[ErrorClass, ErrorCode]
) -> None:
    whole = {"type": "error", "error": {"type": "invalid_request_error", **error}}
    failure = classify_error(status, {}, json.dumps(whole).encode())
    assert (failure.error_class, failure.code) == decision


def test_what_a_row_quotes_is_no_spend_limit() -> None:
    text = "You have reached your specified API usage limits"
    for error in ({"message": f"cannot parse: {text}"}, {"message": text, "type": "api_error"}):
        body = json.dumps({"error": {"type": "invalid_request_error", **error}}).encode()
        assert classify_error(400, {}, body).code is ErrorCode.BAD_REQUEST


# money


def _paid(provider: Provider, usage: Usage) -> Decimal:
    cost = provider.cost(Completion(Verdict.OK, "", usage=usage)).amount
    assert cost is not None
    return Decimal(cost) / 10**6  # USD per million tokens, for one token


@pytest.mark.parametrize(
    ("cache", "write"), [("5m", Decimal("12.5")), ("1h", Decimal(20)), ("none", Decimal(10))]
)
def test_the_cache_has_its_price_though_only_that_of_input_is_declared(
    cache: str, write: Decimal
) -> None:
    provider = made(prices=PRICES, anthropic={"cache": cache})
    assert _paid(provider, Usage(1, 0, cache_write_tokens=1)) == write
    assert _paid(provider, Usage(1, 0, cached_tokens=1)) == 1
    assert provider.worst_case(10**6, 0) == write * 10**12


def test_a_price_of_the_cache_that_is_known_counts() -> None:
    known = made(name="claude-opus-5-5")  # reads are cheaper than a tenth
    assert _paid(known, Usage(1, 0, cached_tokens=1)) == Decimal("0.2")
    cheap = made(prices={**PRICES, "cache_write_per_million_usd": 11})
    assert _paid(cheap, Usage(1, 0, cache_write_tokens=1)) == 11


def test_a_long_request_pays_its_tier_for_the_cache_too() -> None:
    provider = made(name="claude-haiku-5-5", anthropic={"cache": "1h"})
    long = Usage(200_000, 0, cache_write_tokens=200_000)
    assert provider.cost(Completion(Verdict.OK, "", usage=long)).amount == 200_000 * 10**6


# over sockets, through the engine


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    prices = Prices.per_million_usd(Decimal(10), Decimal(50))
    with Simulator(shape="anthropic", prices=prices) as running:
        yield running


def _asked(harness: Harness, count: int, system: str) -> Run:
    rows = [question(f"[[token=t{n}]] row {n}", f"row-{n}", system) for n in range(count)]
    return harness.run(rows, concurrency=1)


@pytest.mark.parametrize("cache", ["5m", "1h", "none"])
def test_the_ledger_has_what_the_cache_cost_to_the_picodollar(
    simulator: Simulator, tmp_path: Path, cache: str
) -> None:
    with closing(Harness(tmp_path, simulator.base_url)) as harness:
        harness.provider = made(
            static=1, base_url=simulator.base_url, prices=PRICES, anthropic={"cache": cache}
        )
        run = _asked(harness, 4, SYSTEM)
    assert run.texts == ["t0", "t1", "t2", "t3"]
    usages = [row.usage for row in run.rows]
    marked = 0 if cache == "none" else 800
    assert [one.cache_write_tokens for one in usages] == [marked, 0, 0, 0]
    assert [one.cached_tokens for one in usages] == [0, marked, marked, marked]
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars


def test_a_used_up_window_of_its_headers_is_waited_for(tmp_path: Path) -> None:
    limits = ServerLimits(requests_per_minute=60)  # one at once
    with (
        Simulator(shape="anthropic", limits=limits) as simulator,
        closing(Harness(tmp_path, simulator.base_url)) as harness,
    ):
        harness.provider = made(base_url=simulator.base_url, prices=PRICES)
        run = harness.run(questions(2), concurrency=1)
        assert set(run.outcomes) == {Outcome.ANSWERED}
        assert simulator.bill.totals.limited == 0
        assert run.engine.progress.paused_seconds > 0


def test_an_enforced_spend_limit_stops_the_run_and_costs_nothing(
    simulator: Simulator, tmp_path: Path
) -> None:
    simulator.outage("enforced_spend_limit")
    with closing(Harness(tmp_path, simulator.base_url)) as harness:
        harness.provider = made(base_url=simulator.base_url, prices=PRICES)
        run = harness.run(questions(5), concurrency=1)
    assert set(run.outcomes) == {Outcome.NOT_ATTEMPTED}
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.QUOTA_EXHAUSTED
    assert (simulator.bill.totals.requests, simulator.bill.totals.charged) == (1, 0)
