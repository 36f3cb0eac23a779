"""How many rows go together: what is worth it, what fits, what a model can put out."""

from __future__ import annotations

from typing import Any

import pytest

from ondine_dagster.llm.output_limits import most_completion_tokens
from ondine_dagster.llm.pack_size import MOST_AUTO, PackPlan, fit_together, worth_together
from ondine_dagster.llm.provider import Provider
from ondine_dagster.llm.registry import build_packing, build_provider
from ondine_dagster.spec import Llm

PRICES = {"input_per_million_usd": 1, "output_per_million_usd": 4}


def provider(prices: dict[str, Any] = PRICES, **llm: Any) -> Provider:
    declared = {"provider": "openai_compatible", "name": "m", "base_url": "http://localhost:1/v1"}
    return build_provider(Llm.model_validate({**declared, "prices": prices, **llm}), None)


def test_more_rows_are_worth_it_the_more_they_share_and_the_less_each_costs() -> None:
    model = provider()
    # 40 tokens are shared; a row has 10, and 10 at four times the price: a twentieth of 50 is 2.5
    assert worth_together(model, 160, 40, 10) == 16
    assert worth_together(model, 320, 40, 10) == 32
    assert worth_together(model, 160, 40, 100) == 2
    assert worth_together(model, 0, 40, 10) == 1
    assert worth_together(model, 10**6, 40, 10) == MOST_AUTO


def test_the_prices_count_and_where_there_are_none_the_tokens_do() -> None:
    dear_answers = provider({"input_per_million_usd": 1, "output_per_million_usd": 40})
    assert worth_together(dear_answers, 160, 40, 10) == 2
    free = provider({"input_per_million_usd": 0, "output_per_million_usd": 0})
    assert worth_together(free, 160, 40, 10) == 40


def test_rows_fit_with_their_answers_and_one_always_goes() -> None:
    assert fit_together(50, [30] * 50, 300, window=1000, ceiling_each=80) == 10
    assert fit_together(5, [30] * 50, 300, window=1000, ceiling_each=80) == 5
    assert fit_together(50, [30] * 3, 300, window=1000, ceiling_each=80) == 3
    assert fit_together(50, [9000] * 50, 300, window=1000, ceiling_each=80) == 1


def test_a_pack_asks_for_no_more_than_a_model_has() -> None:
    packing = build_packing("json", None)
    model = provider(max_tokens=1000)
    plan = PackPlan(packing, model, None, 10, most_completion_tokens=4000)
    assert [plan.ceiling(rows, 1000) for rows in (1, 3, 50)] == [1000, 3000, 4000]
    assert plan.worth(10**6, 40) == 4  # answers at their full length have room
    unknown = PackPlan(packing, model, None, 10)
    assert unknown.ceiling(50, 1000) == 50_000


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("openai/gpt-4o-mini", 16_384),
        ("openai/gpt-4o-2024-05-13", 4_096),
        ("openai/gpt-4.1-nano", 32_768),
        ("openai/gpt-5-mini", 128_000),
        ("anthropic/claude-3-5-haiku-latest", 8_192),
        ("anthropic/claude-haiku-4-5", 64_000),
        ("openrouter/openai/gpt-4o-mini", 16_384),
        ("openai/gpt-4o-mini-2099-01-01", 16_384),
        ("ollama/llama3.1:8b", None),
    ],
)
def test_what_a_model_puts_out_is_known_by_its_name(name: str, most: int | None) -> None:
    provider_name, _, model = name.partition("/")
    llm = Llm.model_validate({"provider": provider_name, "name": model})
    assert most_completion_tokens(llm) == most
