"""A run that cannot work costs nothing: that is found out before a completion is asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from ondine_dagster.engine.catalogue import catalogues_in
from ondine_dagster.engine.preflight import Checked, Preflight, missing_key
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.prices import Prices
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import ServerLimits, Simulator
from ondine_dagster.spec import Llm, OutputField
from ondine_dagster_tests.engine.background import Background
from ondine_dagster_tests.engine.harness import Harness, questions
from ondine_dagster_tests.workbench import REJECTED, RESPONSES, RESULTS, MakeBench, numbered

PRICES = {"input_per_million_usd": 1, "output_per_million_usd": 1}
FIELDS = {"label": OutputField(type="string")}


@pytest.fixture
def look(simulator: Simulator, tmp_path: Any) -> Any:
    """Return a function that looks a model up at the simulator, with these keys."""

    def looked(provider: str, *keys: str, **more: Any) -> Checked:
        declared = {
            "provider": provider,
            "name": "demo-model",
            "base_url": simulator.base_url,
            "prices": PRICES,
            **more,
        }
        llm = Llm.model_validate(declared)
        secrets = [SecretStr(key) for key in keys]
        return Preflight(
            llm,
            build_provider(llm, wire_schema(FIELDS)),
            secrets,
            catalogues_in(tmp_path / "catalogues"),
            asks=True,
            with_fields=True,
        ).look()

    return looked


@pytest.mark.behaviour("A-22")
@pytest.mark.parametrize("provider", ["openai", "groq", "openai_compatible", "together"])
def test_a_good_key_and_a_model_that_exists_pass(
    look: Any, simulator: Simulator, provider: str
) -> None:
    checked = look(provider, "key-1234567890")
    assert (checked.failure, checked.notes) == (None, [])
    assert (simulator.bill.totals.looked_up, simulator.bill.totals.requests) == (1, 0)


@pytest.mark.behaviour("A-22")
@pytest.mark.behaviour("P-9")
@pytest.mark.parametrize("provider", ["openai", "groq", "openai_compatible"])
def test_a_key_that_is_refused_stops_the_run_and_names_its_variable(
    look: Any, simulator: Simulator, provider: str
) -> None:
    simulator.settings = replace(simulator.settings, api_key="the-good-one")
    checked = look(provider, "a-bad-one-123")
    assert checked.failure.code is ErrorCode.UNAUTHORIZED
    assert f"{provider.upper()}_API_KEY" in checked.failure.message
    assert "a-bad-one-123" not in checked.failure.message


@pytest.mark.behaviour("A-22")
def test_of_several_keys_the_bad_ones_are_known_before_the_first_row(
    look: Any, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, api_key="the-good-one")
    checked = look("openai", "a-bad-one-123", "the-good-one")
    assert checked.failure is None
    assert list(checked.key_failures) == [0]
    checked = look("openai", "a-bad-one-123", "another-bad-one")
    assert "no key in OPENAI_API_KEY is good: key 1: " in checked.failure.message
    assert "key 2: " in checked.failure.message


@pytest.mark.behaviour("A-22")
@pytest.mark.behaviour("P-11")
@pytest.mark.parametrize("provider", ["openai", "groq"])
def test_a_model_that_does_not_exist_stops_the_run(look: Any, provider: str) -> None:
    checked = look(provider, "key-1234567890", name="demo-modle")
    assert checked.failure.code is ErrorCode.NOT_FOUND
    assert "has no model demo-modle" in checked.failure.message
    assert "correct llm.name" in checked.failure.message


@pytest.mark.behaviour("A-22")
def test_claude_is_looked_up_by_its_name(look: Any, simulator: Simulator) -> None:
    entry = {
        "type": "model",
        "id": "claude-haiku-4-5",
        "max_input_tokens": 200_000,
    }
    simulator.settings = replace(
        simulator.settings, shape="anthropic", models=(entry,), api_key="the-good-one"
    )
    checked = look("anthropic", "the-good-one", name="claude-haiku-4-5")
    assert (checked.failure, checked.notes, checked.context_window) == (None, [], 200_000)
    refused = look("anthropic", "a-bad-one-123", name="claude-haiku-4-5").failure
    assert "ANTHROPIC_API_KEY" in refused.message
    unknown = look("anthropic", "the-good-one", name="claude-haiku-9").failure
    assert unknown.code is ErrorCode.NOT_FOUND
    assert simulator.bill.totals.requests == 0


@pytest.mark.behaviour("A-22")
def test_openrouter_is_asked_for_the_credit_of_the_key_and_the_price_of_the_model(
    look: Any, simulator: Simulator
) -> None:
    key = "sk-or-0123456789"
    simulator.settings = replace(
        simulator.settings, shape="openrouter", model="a/b", credit_usd=Decimal("0.25")
    )
    checked = look("openrouter", key, name="a/b")
    assert (checked.failure, checked.context_window) == (None, 128_000)
    assert (checked.notes, checked.credit) == ([], Decimal("0.25"))
    cheap = {"input_per_million_usd": "0.1", "output_per_million_usd": "0.6"}
    dearer = look("openrouter", key, name="a/b", prices=cheap).notes[-1]
    assert "lists a/b at $0.15 and $0.6 per million tokens, which is more than" in dearer
    most = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    bounded = look("openrouter", key, name="a/b", prices=cheap, openrouter={"max_price": most})
    assert bounded.notes == []
    assert look("openrouter", key, name="a/c").failure.code is ErrorCode.NOT_FOUND
    simulator.settings = replace(simulator.settings, credit_usd=Decimal(0))
    assert look("openrouter", key, name="a/b").failure.code is ErrorCode.KEY_BUDGET
    # a model that costs nothing needs no credit, and has a limit of its own
    nothing = Prices.per_million_usd(Decimal(0), Decimal(0))
    limits = ServerLimits(requests_per_day=50)
    simulator.settings = replace(
        simulator.settings, model="a/b:free", prices=nothing, limits=limits
    )
    free = look("openrouter", key, name="a/b:free", prices=None)
    assert (free.failure, free.notes) == (None, ["50 requests to free models are left today"])
    assert simulator.bill.totals.requests == 0


def test_a_server_that_lists_only_some_of_its_models_is_believed(look: Any) -> None:
    checked = look("openai_compatible", name="hidden-model")
    assert checked.failure is None
    assert checked.notes[0].endswith("does not list hidden-model")


@pytest.mark.behaviour("A-22")
def test_what_the_list_says_of_the_model_is_used(look: Any, simulator: Simulator) -> None:
    entry = {"id": "demo-model", "max_model_len": 4096, "supported_parameters": ["tools"]}
    simulator.settings = replace(simulator.settings, models=(entry,))
    told = look("vllm").failure
    assert (told.error_class, told.code) == (ErrorClass.CONFIG, ErrorCode.BAD_REQUEST)
    assert "set llm.structured to tools" in told.message
    checked = look("vllm", structured="tools")
    assert (checked.failure, checked.context_window) == (None, 4096)
    assert "takes no seed" in look("vllm", structured="tools", seed=1).failure.message
    assert "lower it" in look("vllm", structured="tools", max_tokens=4096).failure.message


@pytest.mark.parametrize("fault", ["500", "503", "429", "403"])
def test_what_cannot_be_looked_up_stops_nobody(look: Any, simulator: Simulator, fault: str) -> None:
    simulator.outage(fault)
    checked = look("openai", "key-1234567890")
    assert checked.failure is None
    assert checked.notes == [f"key and model could not be checked: HTTP {fault}"]


def test_a_server_that_is_not_there_stops_nobody(look: Any) -> None:
    url = "http://127.0.0.1:9/v1"  # the port of `discard`, on which nobody listens
    checked = look("openai", "key-1234567890", "key-2345678901", base_url=url)
    assert checked.failure is None
    assert checked.notes == [f"{url}/models/demo-model could not be looked up: no connection"]


@pytest.mark.behaviour("P-3")
@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("groq", "GROQ_API_KEY"),
        ("together", "TOGETHER_API_KEY"),
    ],
)
def test_a_provider_without_its_key_is_told_by_the_variable(provider: str, variable: str) -> None:
    llm = Llm.model_validate({"provider": provider, "name": "m"})
    failure = missing_key(llm, [])
    assert failure is not None
    assert failure.message.startswith(f"{variable} is not set, and {provider} answers nobody")
    assert missing_key(llm, [SecretStr("k")]) is None


def test_servers_that_need_no_key_are_asked_without_one() -> None:
    for declared in (
        "ollama/x",
        {"provider": "openai", "name": "m", "base_url": "http://[::1]/v1"},
    ):
        assert missing_key(Llm.model_validate(declared), []) is None


# in runs


class Slow(Preflight):
    """Looks at a provider that does not answer until it is let go."""

    def __init__(self) -> None:
        self.looking, self.answer = threading.Event(), threading.Event()

    def look(self) -> Checked:
        self.looking.set()
        assert self.answer.wait(20)
        return Checked()


def test_an_interrupt_does_not_wait_for_a_provider_that_does_not_answer(
    harness: Harness, simulator: Simulator
) -> None:
    slow = harness.preflight = Slow()
    background = Background(harness.engine(), questions(3))
    try:
        assert slow.looking.wait(20)
        background.interrupt()
        background.join()
        assert not slow.answer.is_set()
    finally:
        slow.answer.set()
    assert background.error is None
    assert simulator.bill.totals.requests == 0


class Broken(Slow):
    """Has a bug."""

    def look(self) -> Checked:
        raise ZeroDivisionError("a bug of ours")


def test_a_bug_of_the_preflight_is_raised(harness: Harness) -> None:
    harness.preflight = Broken()
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        harness.run(questions(3))


@pytest.mark.behaviour("P-3")
def test_a_run_without_its_key_sends_nothing_and_names_the_variable(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(3), llm={"provider": "together", "name": "m", "prices": PRICES})
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    assert "TOGETHER_API_KEY is not set" in str(failed.event_specific_data)
    assert {row["outcome"] for row in bench.rows(RESPONSES)} == {"not_attempted"}
    assert bench.attempts() == []
    assert simulator.bill.totals.requests == 0


@pytest.mark.behaviour("A-22")
def test_a_run_whose_preflight_fails_asks_for_no_completion_and_a_paid_one_looks_nothing_up(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.settings = replace(simulator.settings, api_key="the-good-one")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "a-bad-one-123")
    bench = make_bench(numbered(3), limits={"preflight": True})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    assert (simulator.bill.totals.looked_up, simulator.bill.totals.requests) == (1, 0)
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "the-good-one")
    assert bench.run().success
    event = bench.events(RESPONSES)[-1]
    assert event.asset_materialization is not None
    listed = str(event.asset_materialization.metadata["models_listed_by"].value)
    assert listed.startswith(f"{simulator.base_url}/models, 0.0 h old, sha256 ")
    assert (simulator.bill.totals.looked_up, simulator.bill.totals.charged) == (2, 3)
    monkeypatch.delenv("OPENAI_COMPATIBLE_API_KEY")
    assert bench.run().success  # all is paid: neither a key nor a look is needed
    assert simulator.bill.totals.looked_up == 2
    assert bench.table(RESULTS).num_rows == 3


def test_a_prompt_that_does_not_fit_is_rejected_without_a_request_and_others_are_asked(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    words = " ".join(str(number) for number in range(3000))
    rows = [{"id": "short", "text": "hello"}, {"id": "long", "text": words}]
    bench = make_bench(rows)
    llm = {**bench.dataset.llm.model_dump(exclude_none=True), "context_window": 2000}
    bench = make_bench(llm=llm)
    bench.run_missing()
    (rejected,) = bench.rows(REJECTED)
    assert (rejected["id"], rejected["_error_code"]) == ("long", "context_length_exceeded")
    assert "it was not sent" in rejected["_error_message"]
    assert simulator.bill.totals.requests == 1
    assert bench.contradictions() == []
