"""A fallback of another provider is asked there, in its wire format and with its own key."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.workbench import (
    REJECTED,
    RESPONSES,
    RESULTS,
    MakeBench,
    declaration,
    numbered,
)


def seen_by(simulator: Simulator) -> list[str]:
    return list(simulator.bill.snapshot().authorizations)


def hashed(key: str) -> str:
    return hashlib.sha256(f"Bearer {key}".encode()).hexdigest()


def test_rejected_rows_go_to_another_provider_with_the_key_of_that_one(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "key-of-the-first")
    monkeypatch.setenv("CLAUDES_KEY", "key-of-the-second")
    simulator.settings = replace(
        simulator.settings, api_key="key-of-the-first", faults=FaultPlan(0, {"null_content": 1.0})
    )
    with Simulator(shape="anthropic") as claude:
        claude.settings = replace(claude.settings, api_key="key-of-the-second")
        second = {
            "provider": "anthropic",
            "name": "claude-test",
            "base_url": claude.base_url,
            "key_variable": "CLAUDES_KEY",
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
        }
        llm = {**declaration(simulator)["llm"], "temperature": 0.5, "fallback": second}
        bench = make_bench(numbered(3), llm=llm)
        bench.run_missing()
        assert len(bench.rows(REJECTED)) == 3
        bench.retry()
        assert len(bench.rows(RESULTS)) == 3
        assert {row["model_requested"] for row in bench.rows(RESPONSES)} == {"claude-test"}
        assert seen_by(simulator) == [hashed("key-of-the-first")]
        assert seen_by(claude) == [hashed("key-of-the-second")]
        (paid,) = bench.attempts("sum(cost) AS cost", "model_requested = 'claude-test'")
        assert paid.cost == claude.bill.totals.picodollars
        assert bench.contradictions() == []


def test_a_prompt_that_is_too_long_for_the_first_can_go_to_a_model_with_a_larger_window(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    words = " ".join(map(str, range(3000)))
    llm = declaration(simulator)["llm"]
    second = {"name": "larger-model", "prices": llm["prices"], "context_window": 100_000}
    bench = make_bench(
        [{"id": "long", "text": words}], llm={**llm, "context_window": 2000, "fallback": second}
    )
    bench.run_missing()
    assert simulator.bill.totals.requests == 0
    bench.retry(classes="context_length_exceeded")
    assert [row["id"] for row in bench.rows(RESULTS)] == ["long"]
    assert simulator.bill.totals.charged == 1


def test_without_the_key_of_the_fallback_the_answers_that_are_there_stay(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, faults=FaultPlan(0, {"null_content": 1.0}))
    llm = {**declaration(simulator)["llm"], "fallback": "groq/llama-3.3-70b-versatile"}
    bench = make_bench(numbered(2), llm=llm)
    bench.run_missing()
    before = bench.rows(REJECTED)
    result = bench.retry(raise_on_error=False)
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    assert "GROQ_API_KEY is not set" in str(failed.event_specific_data)
    assert bench.rows(REJECTED) == before
    assert simulator.bill.totals.charged == 2
