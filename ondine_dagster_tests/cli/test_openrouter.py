"""A person whose answers from OpenRouter were lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondine_dagster_tests.cli.typing_person import Person

KEY = "sk-or-0123456789"
LOST = "[[fault=truncated times=1]] [[token=yes]] lost"


@pytest.fixture
def customer(person: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Return a person with a key, one row of whom OpenRouter's answer was lost."""
    simulator = person.simulator
    simulator.settings = replace(simulator.settings, shape="openrouter")
    llm = {
        "provider": "openrouter",
        "name": "a/b",
        "base_url": simulator.base_url,
        "openrouter": {"max_price": {"input_per_million_usd": 1, "output_per_million_usd": 4}},
    }
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    person.write([{"id": "r1", "text": LOST}], llm=llm, limits={"max_unknown": 0})
    assert "1 request of unknown outcome" in person.runs().stdout
    return person


def bill(person: Person) -> str:
    return f"${person.simulator.bill.totals.picodollars / 10**12:.6f}"


def test_openrouter_is_asked_what_became_of_it(
    customer: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = customer.types("ledger", "unknown")
    assert "ledger resolve --by-provider" in unknown.stderr
    monkeypatch.delenv("OPENROUTER_API_KEY")
    without = customer.types("ledger", "resolve", "--by-provider")
    assert (without.exit_code, without.stdout) == (0, "1 request whose API key is not set here.\n")
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    resolved = customer.types("ledger", "resolve", "--by-provider", "--dataset", "notes")
    assert resolved.stdout == (
        f"1 request of unknown outcome settled as openrouter says: {bill(customer)} paid.\n"
    )
    again = customer.types("ledger", "resolve", "--by-provider")
    assert again.stdout == "There are no requests of unknown outcome to openrouter.\n"
    for wrong in (["--free"], ["--older-than", "2h"], ["0123"]):
        refused = customer.types("ledger", "resolve", "--by-provider", *wrong)
        assert (refused.exit_code, "--dataset only" in refused.stderr) == (2, True)


def test_the_next_run_asks_by_itself_and_asks_the_row_again(customer: Person) -> None:
    result = customer.runs()
    assert result.exit_code == 0, result.stderr
    assert "1 request of unknown outcome settled as openrouter says" in result.output
    spent = customer.asks("select sum(cost_usd) from ledger.attempts where state = 'settled'")
    assert float(spent.splitlines()[1]) == customer.simulator.bill.totals.picodollars / 10**12
    assert customer.simulator.bill.totals.charged == 2
    assert customer.types("ledger", "check").exit_code == 0
