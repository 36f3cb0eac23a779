"""What a cache keeps: the least size by model, and the mark at the end of what rows share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.llm.prompt_cache import cache_minimum, marked
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Llm


@pytest.mark.parametrize(
    ("provider", "name", "more", "tokens"),
    [
        ("openai", "gpt-4o-mini", {}, 1024),
        ("openai", "gpt-5-mini", {}, 1024),
        ("openai", "o3", {}, 1024),
        ("openai", "gpt-4-turbo", {}, None),
        ("openai", "gpt-3.5-turbo", {}, None),
        ("anthropic", "claude-opus-4-5", {}, 4096),
        ("anthropic", "claude-haiku-4-5-20251001", {}, 4096),
        ("anthropic", "claude-opus-4-7", {}, 2048),
        ("anthropic", "claude-opus-4-8", {}, 1024),
        ("anthropic", "claude-opus-5", {}, 512),
        ("anthropic", "claude-sonnet-4-5", {}, 1024),
        ("anthropic", "claude-3-5-haiku-20241022", {}, 2048),
        ("anthropic", "claude-sonnet-4-5", {"anthropic": {"cache": "none"}}, None),
        ("groq", "openai/gpt-oss-20b", {}, 128),
        ("groq", "llama-3.1-8b-instant", {}, None),
        ("openrouter", "openai/gpt-4o-mini", {}, 1024),
        ("openrouter", "anthropic/claude-haiku-4.5", {"openrouter": {"prompt_cache": "5m"}}, 4096),
        ("openrouter", "anthropic/claude-haiku-4.5", {}, None),
        ("openrouter", "meta-llama/llama-3.1-8b-instruct", {}, None),
        ("ollama", "llama3.1:8b", {}, None),
    ],
)
def test_the_least_size_is_that_of_the_model(
    provider: str, name: str, more: dict[str, Any], tokens: int | None
) -> None:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    llm = Llm.model_validate({"provider": provider, "name": name, "prices": prices, **more})
    found = cache_minimum(llm)
    assert (found and found.tokens) == tokens
    if found is not None:
        assert found.url.startswith("https://")


_TEXT = st.one_of(st.text(), st.sampled_from(['","role":"user"},', '{"content":', '\\"', "\\"]))


@given(st.lists(_TEXT, min_size=1, max_size=5), st.integers(1, 5))
def test_the_mark_changes_no_text_and_stands_where_it_should(texts: list[str], count: int) -> None:
    roles = ["system", *(["user", "assistant"] * 2)]
    messages = [{"content": text, "role": role} for text, role in zip(texts, roles, strict=False)]
    found = json.loads(marked(compact_json(messages), count, '{"type":"ephemeral"}'))
    for number, (before, after) in enumerate(zip(messages, found, strict=True), start=1):
        if number == count:
            (part,) = after.pop("content")
            assert part == {
                "cache_control": {"type": "ephemeral"},
                "text": before.pop("content"),
                "type": "text",
            }
        assert before == after
