"""What every provider keeps: the same rows, faults and money, whatever is on its wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.attachments import Kind
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import TokenRules, answer, prompt_sha256
from ondine_dagster.spec import Output
from ondine_dagster.spec.providers import PROVIDERS, entry_of
from ondine_dagster_tests.llm.contract.cases import AGAIN, ENDINGS, NOT_FREE, ODD, STOPS
from ondine_dagster_tests.llm.contract.conftest import FIELDS, FILES, KEY, Contract, messages, texts
from ondine_dagster_tests.llm.contract.providers import ROWS

pytestmark = pytest.mark.behaviour("P-14")


def test_every_wire_format_is_under_contract() -> None:
    """One row for each class: a server that differs in its address only adds nothing."""
    known = {entry.implementation for entry in PROVIDERS.values() if not entry.in_process}
    rows = {PROVIDERS[row.provider].implementation for row in ROWS if row.provider in PROVIDERS}
    assert rows == known


def test_an_answer_is_its_rows_own_and_tells_what_it_took(contract: Contract) -> None:
    good = contract.outcomes["good"]
    assert (good.outcome, good.text, good.attempts) == (Outcome.ANSWERED, "ok", 1)
    assert contract.outcomes["emoji"].text == "😀"
    assert good.model_served == contract.provider().model
    assert good.flags == ()
    usage = good.usage
    assert usage.prompt_tokens is not None
    assert usage.completion_tokens == 3 + 1  # hidden and shown
    if contract.row.tells_cache:
        cached = (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
        assert 0 < cached < usage.prompt_tokens
        assert usage.reasoning_tokens == 3
    assert good.cost_source == ("provider" if contract.row.reports_cost else "computed")


@pytest.mark.behaviour("E-12")
@pytest.mark.parametrize("fault", ENDINGS)
def test_a_fault_of_one_row_ends_it_as_everywhere(contract: Contract, fault: str) -> None:
    if fault in contract.row.lacks:
        pytest.skip("no such thing on this wire")
    row = contract.outcomes[fault]
    assert row.outcome is Outcome.ERROR
    assert (row.code, row.error_class) == contract.row.endings.get(fault, ENDINGS[fault])
    assert row.attempts == 1
    assert row.message


def test_the_paid_text_of_an_answer_that_was_cut_is_kept(contract: Contract) -> None:
    assert contract.outcomes["length"].text == "len"


@pytest.mark.parametrize("fault", AGAIN)
def test_a_fault_that_passes_is_asked_again(contract: Contract, fault: str) -> None:
    row = contract.outcomes[fault]
    assert (row.outcome, row.text, row.attempts) == (Outcome.ANSWERED, "later", 2)
    assert (row.unknown_cost > 0) == (fault in NOT_FREE)


@pytest.mark.parametrize("fault", [fault for fault in ODD if fault.endswith("_usage")])
def test_an_answer_without_usage_is_flagged_and_costs_its_worst_case(
    contract: Contract, fault: str
) -> None:
    if fault in contract.row.lacks:
        pytest.skip("no such thing on this wire")
    row = contract.outcomes[fault]
    assert (row.outcome, row.text) == (Outcome.ANSWERED, fault)
    assert "usage_missing" in row.flags
    if row.cost_source != "provider":
        (attempt,) = [one for one in contract.harness.attempts() if one.id == row.attempt]
        assert (row.cost_source, row.cost) == ("estimated", attempt.reserved)


def test_the_model_that_served_is_told(contract: Contract) -> None:
    assert contract.outcomes["other_model"].model_served == f"{contract.provider().model}-fallback"
    assert contract.outcomes["finish_missing"].text == "finish_missing"


@pytest.mark.behaviour("A-20")
def test_half_a_character_is_replaced_and_flagged(contract: Contract) -> None:
    row = contract.outcomes["lone_surrogate"]
    assert (row.text, row.flags) == ("lone_surrogate\ufffd", ("characters_replaced",))


def test_every_request_is_in_the_ledger_at_what_the_server_billed(contract: Contract) -> None:
    """To the picodollar, where the server told its tokens: cached ones at their own price."""
    assert contract.harness.problems() == []
    attempts = contract.harness.attempts()
    assert len(attempts) == sum(row.attempts for row in contract.outcomes.values())
    sure = {
        name: row
        for name, row in contract.outcomes.items()
        if row.cost_source in ("computed", "provider") and name not in NOT_FREE
    }
    assert len(sure) > 15
    billed = contract.simulator.bill.snapshot().prompts
    for name, row in sure.items():
        prompt = prompt_sha256(messages(texts(contract.row)[name]))
        assert row.cost == billed[prompt].picodollars, name


def test_declared_fields_come_back_as_declared(contract: Contract) -> None:
    output = Output.model_validate({"fields": FIELDS})
    asked = "[[token=fields]] which?"
    (row,) = contract.ask(asked, fields=FIELDS).rows
    assert row.outcome is Outcome.ANSWERED
    assert row.text is not None
    wanted = answer(messages(asked), wire_schema(output.fields))
    assert AnswerReader(output).read(row.text) == json.loads(wanted)


@pytest.mark.parametrize("kind", FILES)
def test_the_files_of_a_row_are_sent_with_it_and_paid(contract: Contract, kind: Kind) -> None:
    entry = entry_of(contract.row.provider)
    if not (entry.documents if kind == "document" else entry.images):
        pytest.skip(f"takes no {kind}")
    before = contract.simulator.bill.totals
    (row,) = contract.ask_with_file(f"[[token=seen]] a row with a {kind}", FILES[kind], kind).rows
    assert (row.outcome, row.text) == (Outcome.ANSWERED, "seen")
    after = contract.simulator.bill.totals
    assert row.cost == after.picodollars - before.picodollars
    assert after.prompt_tokens - before.prompt_tokens > contract.words() + 100
    assert contract.harness.problems() == []


@pytest.mark.parametrize("fields", [{}, FIELDS], ids=["text", "fields"])
def test_no_request_costs_more_than_was_set_aside(
    contract: Contract, fields: Mapping[str, Any]
) -> None:
    """Where each byte is a token, and the answer as long as it may be."""
    simulator, before = contract.simulator, contract.simulator.settings
    simulator.settings = replace(before, tokens=TokenRules(per_byte=True))
    asked = [f"{text} {sorted(fields)}" for text in ("7" * 500, "\n" * 500, "😀" * 200, '"' * 500)]
    try:
        run = contract.ask(*asked, "[[token=" + "x" * 500 + "]]", fields=fields)
    finally:
        simulator.settings = before
    assert run.engine.stopped is None
    attempts = {one.id: one for one in contract.harness.attempts()}
    for row in run.rows:
        assert row.attempt is not None
        attempt = attempts[row.attempt]
        assert 0 < attempt.cost <= attempt.reserved
        assert attempt.prompt_tokens + attempt.completion_tokens <= attempt.reserved_tokens


@pytest.mark.behaviour("P-9")
@pytest.mark.behaviour("P-11")
@pytest.mark.parametrize("fault", STOPS)
def test_what_no_row_is_to_blame_for_stops_the_run_at_once(contract: Contract, fault: str) -> None:
    if fault in contract.row.lacks:
        pytest.skip("no such thing on this wire")
    before = contract.simulator.bill.totals.requests
    rows = [f"[[token={n}]] {fault}" for n in range(5)]
    run = contract.ask(*rows, outage=fault, concurrency=1)
    assert set(run.outcomes) == {Outcome.NOT_ATTEMPTED}
    stopped = run.engine.stopped
    assert stopped is not None
    assert (stopped.code, stopped.error_class) == contract.row.endings.get(fault, STOPS[fault])
    if stopped.code is ErrorCode.UNAUTHORIZED:
        assert contract.row.key_variable in stopped.message
    assert contract.simulator.bill.totals.requests == before + 1
    assert {row.cost for row in run.rows} == {0}


@pytest.mark.behaviour("P-9")
def test_a_wrong_key_is_refused_and_its_variable_named(contract: Contract) -> None:
    asked = "[[token=a]] with a wrong key"
    contract.harness.keys = ("sk-wrong-0123456789",)
    try:
        run = contract.ask(asked, concurrency=1)
    finally:
        contract.harness.keys = (KEY,)
    assert contract.ask(asked).texts == ["a"]
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.UNAUTHORIZED
    assert contract.row.key_variable in run.engine.stopped.message


def test_three_bad_requests_before_any_answer_are_a_bad_declaration(contract: Contract) -> None:
    run = contract.ask(*(f"[[token={n}]] bad" for n in range(6)), outage="400", concurrency=1)
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.BAD_REQUEST
    assert run.outcomes[-1] is Outcome.NOT_ATTEMPTED


@pytest.mark.behaviour("A-2")
def test_answers_that_are_paid_serve_under_any_key(contract: Contract) -> None:
    before = contract.simulator.bill.totals.requests
    contract.harness.keys = ("sk-the-next-key-0123",)
    try:
        run = contract.ask(texts(contract.row)["good"])
    finally:
        contract.harness.keys = (KEY,)
    assert run.texts == ["ok"]
    assert contract.simulator.bill.totals.requests == before
