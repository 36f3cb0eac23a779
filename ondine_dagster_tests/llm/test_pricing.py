"""Which price counts: declared or from the table, reported or computed, of which model."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import yaml

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prices import Cost, picodollars
from ondine_dagster.llm.pricing import Pricing
from ondine_dagster.llm.provider import Completion, Usage, Verdict
from ondine_dagster.spec import Llm

OPENAI, OWN = "https://api.openai.com/v1", "http://127.0.0.1:9/v1"
DECLARED = {"input_per_million_usd": 1, "output_per_million_usd": 10}
MILLION = Usage(10**6, 10**6)


def llm(name: str = "gpt-4o-mini", base_url: str = OPENAI, **changes: Any) -> Llm:
    declared = {"provider": "openai_compatible", "name": name, "base_url": base_url}
    return Llm.model_validate(declared | changes)


def answer(served: str | None = None, usage: Usage = MILLION, **changes: Any) -> Completion:
    return Completion(Verdict.OK, "yes", usage=usage, model_served=served, **changes)


def dollars(cost: Cost) -> tuple[Decimal | None, str]:
    amount = cost.amount
    return None if amount is None else Decimal(amount) / 10**12, cost.source


# where the price comes from


def test_a_model_of_the_table_needs_no_declared_price() -> None:
    pricing = Pricing(llm())
    assert dollars(pricing.cost(answer("gpt-4o-mini"))) == (Decimal("0.75"), "computed")
    assert pricing.version.startswith("table:20")
    assert pricing.version.endswith(f":{pricing.prices.digest}")


def test_a_declared_price_counts_before_the_table() -> None:
    pricing = Pricing(llm(prices=DECLARED))
    assert dollars(pricing.cost(answer("gpt-4o-mini"))) == (11, "computed")
    assert pricing.version == f"declared:{pricing.prices.digest}"


def test_all_that_can_be_declared_is_part_of_the_price() -> None:
    prices = Pricing(
        llm(
            prices={
                **DECLARED,
                "cached_input_per_million_usd": 0.1,
                "cache_write_per_million_usd": 1.25,
                "per_request_usd": 5,
                "tiers": [
                    {**DECLARED, "above_prompt_tokens": 1000, "input_per_million_usd": 2},
                    {**DECLARED, "above_prompt_tokens": 2000, "cache_write_per_million_usd": 4},
                ],
            }
        )
    ).prices
    assert prices.cost(1000, 0, 300, 200) == picodollars(Decimal("5.00078"))
    assert prices.cost(1001, 0) == picodollars(Decimal("5.002002"))
    assert prices.cost(2001, 0, 0, 2001) == picodollars(Decimal("5.008004"))
    assert prices.worst_case(2001, 1) == picodollars(Decimal("5.008014"))


@pytest.mark.parametrize(
    ("name", "base_url", "why"),
    [
        ("my-model", OWN, f"{OWN} is no provider of the price table"),
        ("gpt-4o-mini", OWN, f"{OWN} is no provider of the price table"),
        ("gpt-99", OPENAI, "has no such model of openai"),
        ("gpt-4o-mini-tuned", OPENAI, "has no such model of openai"),
    ],
)
def test_a_model_without_a_price_is_refused_with_the_lines_that_give_one(
    name: str, base_url: str, why: str
) -> None:
    with pytest.raises(OndineError) as caught:
        Pricing(llm(name, base_url))
    message = str(caught.value)
    assert why in message
    assert f"what does {name} cost?" in message
    lines = yaml.safe_load("llm:" + message.partition("below `llm:`")[2])
    assert Pricing(llm(name, base_url, **lines["llm"])).prices.rates.input == 15 * 10**10


def test_a_price_of_nothing_is_one_that_somebody_declared() -> None:
    free = {"input_per_million_usd": 0, "output_per_million_usd": 0}
    pricing = Pricing(llm("my-model", OWN, prices=free))
    assert pricing.cost(answer("my-model")) == Cost(0, "computed")


def test_what_a_batch_job_costs_is_known_to_the_table_only() -> None:
    assert Pricing(llm()).prices.batch == Fraction(1, 2)
    assert Pricing(llm(prices=DECLARED)).prices.batch is None


# the model that was served


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        ("gpt-4o", ("12.5", "computed")),
        ("GPT-4o", ("12.5", "computed")),
        (None, ("12.5", "computed")),
        ("gpt-4o-2024-08-06", ("12.5", "computed")),
        ("gpt-4o-20990101", ("12.5", "computed")),
        ("gpt-4o-2024-05-13", ("20", "computed")),  # a snapshot with a price of its own
        ("gpt-4o-mini", ("0.75", "computed")),
        ("gpt-4o-house-blend", ("12.5", "estimated")),
    ],
)
def test_the_model_that_was_served_is_paid_for(
    served: str | None, expected: tuple[str, str]
) -> None:
    amount, source = dollars(Pricing(llm("gpt-4o")).cost(answer(served)))
    assert (amount, source) == (Decimal(expected[0]), expected[1])


@pytest.mark.parametrize(
    ("base_url", "served", "amount"),
    [
        (OPENAI, "gpt-4o", "11"),
        (OPENAI, "gpt-4o-2024-05-13", "11"),  # the declared price is for its snapshots too
        (OPENAI, "gpt-4o-mini", "0.75"),
        (OPENAI, "anything", "11"),
        (OWN, "gpt-4o-mini", "11"),  # one's own server calls its model as it likes
        (OWN, "/models/llama.gguf", "11"),
    ],
)
def test_a_declared_price_stands_for_what_the_table_does_not_know(
    base_url: str, served: str, amount: str
) -> None:
    pricing = Pricing(llm("gpt-4o", base_url, prices=DECLARED))
    assert dollars(pricing.cost(answer(served))) == (Decimal(amount), "computed")


# what the provider says


@pytest.mark.behaviour("B-5")
@pytest.mark.parametrize("amount", [0, 123_456_789])
def test_what_the_provider_says_it_billed_counts(amount: int) -> None:
    pricing = Pricing(llm(prices=DECLARED))
    for usage in (MILLION, Usage()):
        told = answer("gpt-4o", usage, cost_reported=amount)
        assert pricing.cost(told) == Cost(amount, "provider")


@pytest.mark.parametrize("usage", [Usage(), Usage(5), Usage(completion_tokens=5)])
def test_without_usage_nobody_knows_the_cost(usage: Usage) -> None:
    assert Pricing(llm()).cost(answer(usage=usage)) == Cost(None, "estimated")


def test_tokens_of_the_cache_have_their_own_price() -> None:
    pricing = Pricing(llm(prices={**DECLARED, "cache_write_per_million_usd": 2}))
    usage = replace(MILLION, cache_write_tokens=500_000, completion_tokens=0)
    assert dollars(pricing.cost(answer(usage=usage))) == (Decimal("1.5"), "computed")
    assert dollars(Pricing(llm()).cost(answer(usage=Usage(10**6, 0, 10**6)))) == (
        Decimal("0.075"),
        "computed",
    )
