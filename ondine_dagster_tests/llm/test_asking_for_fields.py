"""How declared fields are asked for, by what the model takes, and where the answer then stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ondine_dagster.llm.capabilities import capabilities_of
from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Completion, Verdict
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import Llm, Output

FIELDS = Output.model_validate(
    {"fields": {"mood": {"type": "string", "description": 'How it "feels"'}}}
).fields
SCHEMA = wire_schema(FIELDS)
MODES = ("json_schema", "json_object", "tools", "prompt")


def llm(provider: str = "openai", name: str = "gpt-4o-mini", **more: Any) -> Llm:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    declared = {"provider": provider, "name": name, "prices": prices}
    return Llm.model_validate(declared | more)


def made(mode: str, **more: Any) -> ChatCompletions:
    found = build_provider(llm(structured=mode, **more), SCHEMA)
    assert isinstance(found, ChatCompletions)
    return found


def body(mode: str, system: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made(mode).body(messages_json(system, 'It "works"\n'), 64))
    return found


@pytest.mark.behaviour("A-24")
def test_a_schema_constrains_the_answer() -> None:
    sent = body("json_schema")
    wanted = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert sent["response_format"] == {"type": "json_schema", "json_schema": wanted}
    assert "tools" not in sent
    assert len(sent["messages"]) == 1


def test_a_tool_takes_the_schema_as_its_parameters_and_must_be_called() -> None:
    sent = body("tools")
    (tool,) = sent["tools"]
    assert tool["function"]["parameters"] == SCHEMA
    assert sent["tool_choice"]["function"]["name"] == tool["function"]["name"] == "answer"
    assert "response_format" not in sent


@pytest.mark.behaviour("P-18")
@pytest.mark.parametrize("mode", ["json_object", "prompt"])
@pytest.mark.parametrize("system", [None, 'Be "brief".\n{"role":"system"}'])
def test_the_schema_stands_in_the_one_system_message(mode: str, system: str | None) -> None:
    sent = body(mode, system)
    first, second = sent["messages"]
    assert (first["role"], second) == ("system", {"content": 'It "works"\n', "role": "user"})
    assert first["content"].startswith(f"{system}\n\n" if system else "Answer with one JSON")
    assert json.loads(first["content"].rpartition("schema:\n")[2]) == SCHEMA
    assert sent.get("response_format") == (
        {"type": "json_object"} if mode == "json_object" else None
    )


@pytest.mark.parametrize("mode", MODES)
def test_plain_text_is_asked_for_in_the_same_way_in_every_mode(mode: str) -> None:
    plain = build_provider(llm(structured=mode), {})
    assert plain.body("[]", 9) == build_provider(llm(), {}).body("[]", 9)
    assert plain.prompt_tokens_bound("[]") == build_provider(llm(), {}).prompt_tokens_bound("[]")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_bound_holds_whatever_is_added(mode: str, system: str | None) -> None:
    """One token per byte of all text that the provider is sent."""
    messages = messages_json(system, "7" * 100)
    sent = json.loads(made(mode).body(messages, 64))
    texts = "".join(message["content"] for message in sent.pop("messages"))
    rest = json.dumps({key: sent[key] for key in ("tools", "response_format") if key in sent})
    assert made(mode).prompt_tokens_bound(messages) >= len((texts + rest).encode())


# where the answer stands


def reply(message: dict[str, Any], finish: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()


def call(name: str = "answer", arguments: object = '{"mood": "good"}') -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def read(mode: str, raw: bytes) -> Completion:
    found = made(mode).parse(200, {}, raw)
    assert isinstance(found, Completion)
    return found


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_the_arguments_of_the_tool_are_the_answer(finish: str) -> None:
    done = read("tools", reply({"content": None, "tool_calls": [call()]}, finish))
    assert (done.verdict, done.text, done.code) == (Verdict.OK, '{"mood": "good"}', None)


def test_arguments_that_were_cut_off_are_a_truncated_answer() -> None:
    cut = {"content": None, "tool_calls": [call(arguments='{"mo')]}
    done = read("tools", reply(cut, "length"))
    assert (done.verdict, done.text) == (Verdict.TRUNCATED, '{"mo')


@pytest.mark.behaviour("A-16")
@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        ("tools", [call("search")]),
        ("tools", [call(), call()]),
        ("tools", [call(arguments={"mood": "good"})]),
        ("tools", []),
        ("tools", ["text"]),
        ("json_schema", [call()]),
    ],
)
def test_any_other_call_of_a_tool_is_no_answer(mode: str, calls: list[Any]) -> None:
    done = read(mode, reply({"content": None, "tool_calls": calls}, "tool_calls"))
    assert done.code is ErrorCode.TOOL_CALLS


def test_a_model_that_answers_instead_of_calling_the_tool_is_read_too() -> None:
    done = read("tools", reply({"content": '{"mood": "good"}'}))
    assert (done.verdict, done.text) == (Verdict.OK, '{"mood": "good"}')


# what is known of models


@pytest.mark.behaviour("A-24")
@pytest.mark.behaviour("P-18")
@pytest.mark.parametrize(
    ("provider", "name", "structured", "strict"),
    [
        ("openai", "gpt-4o-mini", "json_schema", True),
        ("openai", "gpt-4o-2024-08-06", "json_schema", True),
        ("openai", "gpt-4o-2024-05-13", "json_object", True),
        ("openai", "gpt-4.1-mini", "json_schema", True),
        ("openai", "gpt-4.5-preview", "json_schema", True),
        ("openai", "gpt-5", "json_schema", True),
        ("openai", "o3-mini", "json_schema", True),
        ("openai", "o1-mini", "prompt", True),
        ("openai", "gpt-4", "tools", True),
        ("openai", "gpt-4-0613", "tools", True),
        ("openai", "gpt-4-turbo-2024-04-09", "json_object", True),
        ("openai", "gpt-3.5-turbo-0125", "json_object", True),
        ("groq", "openai/gpt-oss-120b", "json_schema", True),
        ("groq", "meta-llama/llama-4-scout-17b-16e-instruct", "json_schema", False),
        ("groq", "llama-3.3-70b-versatile", "json_object", True),
        ("ollama", "llama3.2", "json_schema", True),
    ],
)
def test_what_a_model_takes_is_known_by_its_name(
    provider: str, name: str, structured: str, strict: bool
) -> None:
    known = capabilities_of(llm(provider, name))
    assert known.structured == structured
    assert known.strict == strict or structured != "json_schema"


def test_a_known_address_says_whose_model_it_is() -> None:
    own = llm("openai_compatible", "gpt-4", base_url="https://api.openai.com/v1")
    assert capabilities_of(own).structured == "tools"
    other = llm("openai_compatible", "gpt-4", base_url="https://llm.example.com/v1")
    assert capabilities_of(other).structured == "json_schema"


def test_a_declared_way_counts_before_what_is_known() -> None:
    assert capabilities_of(llm(structured="prompt")).structured == "prompt"
    assert capabilities_of(llm(name="gpt-4", structured="json_schema")).strict
    scout = llm("groq", "meta-llama/llama-4-scout-17b-16e-instruct", structured="json_schema")
    assert not capabilities_of(scout).strict
