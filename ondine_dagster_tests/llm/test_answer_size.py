"""How long an answer probably is, told by its form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ondine_dagster.llm.answer_size import likely_tokens, thinks
from ondine_dagster.spec import Llm, Output

PRICES = {"input_per_million_usd": 1, "output_per_million_usd": 2}


def llm(name: str = "m", provider: str = "openai", **more: Any) -> Llm:
    return Llm.model_validate({"provider": provider, "name": name, "prices": PRICES, **more})


def tokens(**output: Any) -> float | None:
    return likely_tokens(llm(), Output.model_validate(output))


def test_an_object_is_as_long_as_its_names_and_values() -> None:
    fields = {
        "label": {"type": "string", "enum": ["good", "evil"]},
        "größe": {"type": "integer", "maximum": 999},
        "sure": {"type": "boolean", "required": False},
    }
    found = tokens(fields=fields)
    answer = {"label": "good", "größe": 999, "sure": False}
    text = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    assert found == len(text.encode()) / 3


def test_free_text_and_nested_values_are_assumed_longer() -> None:
    item = {"type": "object", "properties": {"name": {"type": "string"}}}
    alone = tokens(fields={"x": item})
    several = tokens(fields={"x": {"type": "array", "items": item}})
    assert alone is not None and several is not None
    assert 30 < alone < 60
    assert 2 * alone < several < 4 * alone


def test_a_choice_is_one_of_its_words_unless_it_stands_among_others() -> None:
    assert tokens(choice=["yes", "no"]) == 2.5 / 3
    assert tokens(choice={"values": ["yes", "no"], "anywhere": True}) is None


@pytest.mark.parametrize(
    "output", [{}, {"format": "json"}, {"pattern": "(?P<a>b)"}, {"function": "m:f"}]
)
def test_of_free_text_nothing_is_said(output: dict[str, Any]) -> None:
    assert tokens(**output) is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (llm("gpt-4o-mini"), False),
        (llm("o3-mini"), True),
        (llm("gpt-5-mini"), True),
        (llm("gpt-5-chat-latest"), False),
        (llm("gpt-5-mini", openai={"reasoning_effort": "minimal"}), False),
        (llm("gpt-5.1", openai={"reasoning_effort": "high"}), True),
        (llm("openai/gpt-oss-120b", "groq"), True),
        (llm("deepseek/deepseek-r1", "openrouter"), True),
        (llm("qwen/qwen3-235b-a22b-instruct", "openrouter"), False),
        (llm("meta-llama/llama-3.3-70b-instruct", "openrouter"), False),
        (llm("claude-haiku-5-5", "anthropic"), False),
        (llm("claude-haiku-5-5", "anthropic", anthropic={"thinking": "adaptive"}), True),
    ],
)
def test_of_a_model_that_thinks_nothing_is_said(model: Llm, expected: bool) -> None:
    output = Output.model_validate({"fields": {"sure": {"type": "boolean"}}})
    assert thinks(model) is expected
    assert (likely_tokens(model, output) is None) is expected
