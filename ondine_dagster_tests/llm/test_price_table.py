"""The table that comes with the package, and how a model is found in it."""

from __future__ import annotations

import datetime
import json
import random
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from importlib.metadata import version

import price_table as script
import pytest
from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import TimeOfDateConstraint

from ondine_dagster.llm.price_table import HOSTS, PriceTable, price_table, provider_at
from ondine_dagster.llm.prices import Prices, Rates, usd

DAY = datetime.date(2026, 11, 20)
TABLE = PriceTable.from_document(
    {
        "date": "2026-11-01",
        "models": [
            {
                "provider": "openai",
                "names": ["m", "m-mini"],
                "prices": [
                    {"input": "1", "output": "2", "batch": "1/3"},
                    {"from": "2026-12-01", "input": "3", "output": "4"},
                    {"from": "2027-01-01", "input": "5", "output": "6"},
                ],
            },
            {"provider": "openai", "names": ["m-2026-02-03"], "prices": [
                {"input": "9", "output": "9", "cached_input": "0.5", "cache_write": "10",
                 "request": "0.001", "tiers": [{"above": 200, "input": "18", "output": "27"}]},
            ]},
        ],
    }
)  # fmt: skip


def found(model: str, day: datetime.date = DAY) -> Decimal | None:
    """Return the USD that a million prompt tokens cost."""
    prices = TABLE.find("openai", model, day)
    return prices and Decimal(prices.rates.input) / 10**12


@pytest.mark.parametrize(
    ("day", "price"),
    [("2026-10-01", 1), ("2026-11-30", 1), ("2026-12-01", 3), ("2026-12-31", 3), ("2027-05-01", 5)],
)
def test_the_price_of_the_day_counts(day: str, price: int) -> None:
    assert found("m", datetime.date.fromisoformat(day)) == price


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("m", 1),
        ("M-Mini", 1),
        ("m-2026-05-06", 1),
        ("m-20260506", 1),
        ("m@20260506", 1),
        ("m-2026-02-03", 9),
        ("m-large", None),
        ("m-2605", None),
        ("m-mini:free", None),
        ("m-2026-05-06-high", None),
        ("mm", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name_or_that_of_a_snapshot(model: str, price: int | None) -> None:
    assert found(model) == price


def test_a_model_is_looked_up_at_its_own_provider() -> None:
    assert TABLE.find("groq", "m", DAY) is None


def test_all_prices_of_an_entry_are_read_exactly() -> None:
    prices = TABLE.find("openai", "m-2026-02-03", DAY)
    assert prices is not None
    assert (prices.rates.cached_input, prices.rates.cache_write) == (5 * 10**11, 10**13)
    assert prices.request == 10**9
    (tier,) = prices.tiers
    assert (tier.above, tier.rates.output, tier.rates.cache_write) == (
        200,
        27 * 10**12,
        18 * 10**12,
    )
    assert prices.batch is None
    assert _known(TABLE.find("openai", "m", DAY)).batch == Fraction(1, 3)


@pytest.mark.parametrize(
    ("address", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.OpenAI.com:443/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://evil-openai.azure.com/v1", None),
        ("https://llm.example.com/api.openai.com", None),
        ("http://127.0.0.1:8000/v1", None),
    ],
)
def test_a_provider_is_known_by_its_host(address: str, provider: str | None) -> None:
    assert provider_at(address) == provider


# the table of the package


def test_the_file_is_what_the_script_makes_of_the_pinned_prices() -> None:
    text = script.TABLE.read_text(encoding="utf-8")
    document = json.loads(text)
    assert document["source"] == f"genai-prices {version('genai-prices')}", "run the script again"
    assert text == script.render(datetime.date.fromisoformat(document["date"]))
    assert len(text) < 400_000


def test_every_provider_has_models_and_every_model_a_price() -> None:
    table = price_table()
    assert {provider for provider, _ in table.models} == set(HOSTS.values())
    for provider, model in table.models:
        assert _known(table.find(provider, model, DAY)).rates.output > 0, (provider, model)


def test_known_models_cost_what_their_price_lists_say() -> None:
    """Read on the pages of the providers, not in the table's source."""
    mini = _known(price_table().find("openai", "gpt-4o-mini-2024-07-18", DAY))
    assert mini.rates == Rates.per_million_usd(*map(Decimal, ("0.15", "0.60", "0.075")))
    assert mini.batch == Fraction(1, 2)
    sonnet = _known(price_table().find("anthropic", "claude-sonnet-4-5-20250929", DAY))
    assert sonnet.rates == Rates.per_million_usd(*map(Decimal, ("3", "15", "0.3", "3.75")))
    (tier,) = sonnet.tiers
    assert (tier.above, usd(tier.rates.input), usd(tier.rates.output)) == (200_000, 6, 22.5)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-mini-search-preview"),  # bills its searches too
        ("openai", "text-embedding-3-small"),  # gives no answers
        ("openrouter", "anthropic/claude-haiku-4.5:batch"),  # the price of another way to ask
        ("perplexity", "sonar"),
    ],
)
def test_a_model_that_bills_otherwise_is_not_in_the_table(provider: str, model: str) -> None:
    assert price_table().find(provider, model, DAY) is None


def test_costs_are_those_of_the_source() -> None:
    """Every model with random usage, on the day of the table and when new prices have come."""
    chance = random.Random(3)
    table = price_table()
    days = [datetime.date.fromisoformat(table.date), datetime.date(2028, 2, 29)]
    compared = 0
    for name in sorted(set(HOSTS.values())):
        provider = next(one for one in providers if one.id == name)
        models = [model for model in provider.models if (name, model.id.lower()) in table.models]
        for model in models:
            if _hourly(model.prices):
                continue
            for day in days:
                prompt = chance.choice((1000, 150_000, 300_000, 1_500_000))
                cached, written = chance.randrange(prompt // 2), chance.randrange(prompt // 2)
                answer = chance.randrange(10_000)
                told = model.get_prices(datetime.datetime.combine(day, datetime.time(12)))
                expected = told.calc_price(
                    Usage(
                        input_tokens=prompt,
                        output_tokens=answer,
                        cache_read_tokens=cached,
                        cache_write_tokens=written,
                    )
                )["total_price"]
                ours = _known(table.find(name, model.id, day)).cost(prompt, answer, cached, written)
                pico = (expected * 10**12).to_integral_value(rounding=ROUND_CEILING)
                # a rate with more than 12 digits is rounded up
                assert pico <= ours <= pico + 4, (name, model.id, day)
                compared += 1
    assert compared > 1500


def test_a_price_that_depends_on_the_hour_counts_at_its_dearest() -> None:
    provider = next(one for one in providers if one.id == "deepseek")
    model = next(one for one in provider.models if _hourly(one.prices))
    prices = _known(price_table().find("deepseek", model.id, DAY))
    usage = Usage(input_tokens=10**6, output_tokens=10**6)
    by_hour = {
        model.get_prices(datetime.datetime.combine(DAY, datetime.time(hour))).calc_price(usage)[
            "total_price"
        ]
        for hour in range(24)
    }
    assert len(by_hour) > 1
    assert prices.cost(10**6, 10**6) == max(by_hour) * 10**12


def _hourly(prices: object) -> bool:
    return isinstance(prices, list) and any(
        isinstance(price.constraint, TimeOfDateConstraint) for price in prices
    )


def _known(prices: Prices | None) -> Prices:
    assert prices is not None
    return prices
