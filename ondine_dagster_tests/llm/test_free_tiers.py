"""Which models are free up to a cap, and what the cap is."""

from __future__ import annotations

import pytest

from ondine_dagster.llm.free_tiers import free_tier

OPENROUTER = "https://openrouter.ai/api/v1"


@pytest.mark.behaviour("B-5")
def test_free_models_of_openrouter_have_a_rate_and_two_daily_caps() -> None:
    tier = free_tier(OPENROUTER, "meta-llama/llama-3.3-70b-instruct:free")
    assert tier is not None
    assert tier.requests_per_minute == 20
    assert [cap.requests for cap in tier.daily] == [50, 1000]


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENROUTER, "meta-llama/llama-3.3-70b-instruct"),
        ("https://api.openai.com/v1", "gpt-4o-mini:free"),
        ("http://127.0.0.1:8000/v1", "demo-model:free"),
    ],
)
def test_others_belong_to_no_free_tier(base_url: str, model: str) -> None:
    assert free_tier(base_url, model) is None
