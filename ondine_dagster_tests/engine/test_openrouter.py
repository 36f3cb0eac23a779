"""OpenRouter over sockets: what is paid, what is free, and what became of what was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ondine_dagster.engine import retry
from ondine_dagster.engine.generations import Told, settle_as_provider_says
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.engine.token_weight import TokenWeight
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.openrouter import CACHE_HIT
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Usage
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.simulator import Simulator, TokenRules
from ondine_dagster.spec import Llm
from ondine_dagster_tests.engine.harness import Harness, Run, question

KEY, SECOND = "sk-or-first-0123456789", "sk-or-second-0123456789"
Ask = Callable[..., Run]


@pytest.fixture
def openrouter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.002)
    with Simulator(shape="openrouter") as simulator:
        yield simulator


@pytest.fixture
def harness(openrouter: Simulator, tmp_path: Path) -> Iterator[Harness]:
    with closing(Harness(tmp_path, openrouter.base_url)) as made:
        made.keys = (KEY,)
        yield made


@pytest.fixture
def ask(harness: Harness, openrouter: Simulator) -> Ask:
    """Return what asks rows of these texts, one after the other."""

    def asked(*texts: str, openrouter: dict[str, Any] | None = None, **limits: Any) -> Run:
        llm = {
            "provider": "openrouter",
            "name": "openai/gpt-4o-mini",
            "base_url": address,
            "max_tokens": 64,
            "openrouter": openrouter,
        }
        harness.provider = build_provider(Llm.model_validate(llm), {})
        return harness.run([question(text) for text in texts], concurrency=1, **limits)

    address = openrouter.base_url
    return asked


def test_an_error_inside_a_200_is_asked_again_and_costs_nothing(
    ask: Ask, harness: Harness, openrouter: Simulator
) -> None:
    faults = (
        "error_in_200 status=502",
        "broken_off status=503 code=provider_overloaded",
        "no_token",
    )
    run = ask(*(f"[[fault={fault} times=1]] [[token=yes]] {fault[:6]}" for fault in faults))
    assert run.texts == ["yes"] * 3
    assert [row.attempts for row in run.rows] == [2] * 3
    totals = openrouter.bill.totals
    assert (totals.charged, totals.repeats) == (3, 0)
    assert sum(row.cost for row in run.rows) == totals.picodollars
    assert harness.states() == {"settled": 3, "released": 3}


@pytest.mark.behaviour("P-8")
def test_the_ledger_has_what_the_user_pays_under_a_key_of_ones_own(
    ask: Ask, harness: Harness, openrouter: Simulator
) -> None:
    (row,) = ask("[[fault=own_key]] [[token=yes]] x").rows
    (attempt,) = harness.attempts()
    assert row.cost == attempt.cost == openrouter.bill.totals.picodollars
    assert (attempt.is_byok, attempt.cost_source) == (True, "provider")
    assert 0 < attempt.upstream_cost < attempt.cost
    assert (attempt.provider_served, attempt.remote_id[:4]) == ("Simulated", "gen-")


@pytest.mark.behaviour("P-20")
def test_the_model_that_answered_in_its_place_is_recorded(ask: Ask, harness: Harness) -> None:
    others = {"models": ["anthropic/claude-3.5-haiku"]}
    (row,) = ask("[[fault=other_model]] [[token=yes]] x", openrouter=others).rows
    (attempt,) = harness.attempts()
    assert row.model_served == attempt.model_served == "anthropic/claude-3.5-haiku"
    assert attempt.model_requested == "openai/gpt-4o-mini"


@pytest.mark.parametrize(("lives", "write"), [("5m", Decimal("1.25")), ("1h", Decimal(2))])
def test_writing_the_cache_costs_no_more_than_was_set_aside(
    harness: Harness, openrouter: Simulator, lives: str, write: Decimal
) -> None:
    openrouter.settings = replace(openrouter.settings, tokens=TokenRules(per_byte=True))
    llm = {
        "provider": "openrouter",
        "name": "openai/gpt-4o-mini",  # the prices of the simulator
        "base_url": openrouter.base_url,
        "max_tokens": 1,
        "openrouter": {"prompt_cache": lives},
    }
    harness.provider = build_provider(Llm.model_validate(llm), {}, static_messages=1)
    system = "You label rows. " * 500
    rows = [
        replace(question(f"[[token={n}]]"), messages=messages_json(system, f"[[token={n}]]"))
        for n in range(3)
    ]
    run = harness.run(rows, concurrency=1)
    assert run.engine.stopped is None
    first, *others = harness.attempts()
    assert (first.cache_write_tokens, first.cached_tokens) == (len(system), 0)
    assert {(one.cache_write_tokens, one.cached_tokens) for one in others} == {(0, len(system))}
    assert sum(one.cost for one in harness.attempts()) == openrouter.bill.totals.picodollars
    assert first.cost > len(system) * write * 150_000  # picodollars of a prompt token
    assert all(one.cost <= one.reserved for one in harness.attempts())


def test_an_answer_that_was_lost_comes_from_the_cache_for_nothing(
    ask: Ask, openrouter: Simulator
) -> None:
    lost = "[[fault=reset_after times=1]] [[token=yes]] x"
    (row,) = ask(lost, openrouter={"response_cache_seconds": 60}).rows
    assert (row.text, row.attempts, row.cost) == ("yes", 2, 0)
    assert row.flags == (CACHE_HIT,)
    assert openrouter.bill.totals.charged == 1


def test_an_answer_without_tokens_teaches_nothing_of_their_number() -> None:
    weight = TokenWeight(64)
    for _ in range(10):
        weight.learn(1000, Usage(250, 10))
    before = weight.of(1000)
    assert weight.learn(1000, Usage(0, 0)) == 0
    assert weight.of(1000) == before == 260


@pytest.mark.parametrize("kind", ["402 code=credits", "403 code=key_limit", "401"])
def test_a_key_without_money_gives_way_to_the_next(
    ask: Ask, harness: Harness, openrouter: Simulator, kind: str
) -> None:
    openrouter.settings = replace(openrouter.settings, keys={KEY: kind})
    harness.keys = (KEY, SECOND)
    run = ask(*(f"[[token={n}]] row" for n in range(4)))
    assert run.texts == ["0", "1", "2", "3"]
    assert run.engine.stopped is None
    assert len(openrouter.bill.snapshot().spent) == 1


def test_money_that_is_only_in_flight_is_waited_for(ask: Ask) -> None:
    fault = "402 code=in_flight_budget times=1 retry_after=0"
    (row,) = ask(f"[[fault={fault}]] [[token=yes]] x").rows
    assert (row.text, row.attempts) == ("yes", 2)


def test_a_spent_credit_stops_the_run_with_what_helps(
    ask: Ask, openrouter: Simulator, harness: Harness
) -> None:
    openrouter.settings = replace(openrouter.settings, credit_usd=Decimal("0.000001"))
    run = ask(*(f"[[token={n}]] row" for n in range(5)))
    assert run.outcomes == [Outcome.ANSWERED, *[Outcome.NOT_ATTEMPTED] * 4]
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.PAYMENT_REQUIRED
    assert "lower llm.max_tokens" in run.engine.stopped.message


# what became of a lost request


def looked_up(harness: Harness, *keys: str, dataset: str | None = None) -> Told:
    return settle_as_provider_says(harness.ledger, [SecretStr(key) for key in keys], dataset)


def test_a_request_that_has_a_name_is_settled_at_what_it_cost(
    ask: Ask, harness: Harness, openrouter: Simulator
) -> None:
    harness.max_unknown = 0
    (row,) = ask("[[fault=truncated times=1]] [[token=yes]] x").rows
    assert row.outcome is Outcome.HELD
    (before,) = harness.attempts()
    assert (before.state, before.remote_id[:4]) == ("unknown", "gen-")
    told = looked_up(harness, KEY)
    assert told == Told(settled=1, paid=openrouter.bill.totals.picodollars)
    (after,) = harness.attempts()
    assert (after.state, after.cost_source) == ("settled", "provider")
    assert after.cost == openrouter.bill.totals.picodollars < before.reserved
    assert after.prompt_tokens > 0
    assert harness.problems() == []
    # the answer is gone, and its question may be asked again
    assert ask("[[fault=truncated times=1]] [[token=yes]] x").texts == ["yes"]
    assert looked_up(harness, KEY) == Told()
    assert looked_up(harness, KEY).text == ""


def test_what_cannot_be_looked_up_stays_unknown_and_is_told_apart(
    ask: Ask, harness: Harness, openrouter: Simulator
) -> None:
    harness.max_unknown = 0
    ask("[[fault=reset_after]] a", "[[fault=truncated]] b")
    assert looked_up(harness, KEY, dataset="others") == Told()
    # a key goes nowhere but where it was used
    assert looked_up(harness, SECOND) == Told(nameless=1, keyless=1)
    assert looked_up(harness) == Told(nameless=1, keyless=1)
    openrouter.outage("503")
    found = looked_up(harness, KEY)
    openrouter.recover()
    assert (found.settled, found.trouble) == (0, "HTTP 503")
    assert "openrouter could not be asked: HTTP 503" in found.text
    assert harness.states() == {"unknown": 2}
    assert looked_up(harness, KEY).text.endswith("1 request lost before openrouter named it")
    assert harness.states() == {"unknown": 1, "settled": 1}


def test_a_generation_that_is_not_there_yet_settles_nothing(
    ask: Ask, harness: Harness, openrouter: Simulator
) -> None:
    harness.max_unknown = 0
    ask("[[fault=truncated]] b")
    openrouter.settings = replace(openrouter.settings, shape="openai")  # forgets
    openrouter.settings = replace(openrouter.settings, shape="openrouter")
    assert looked_up(harness, KEY) == Told(not_told=1)
    assert harness.states() == {"unknown": 1}
