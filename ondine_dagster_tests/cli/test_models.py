"""`models` lists what there is to name, and asks nobody; `doctor` asks whether it is there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster.spec.presets import PRESETS
from ondine_dagster_tests.cli.typing_person import Person


def listed(person: Person, *options: str) -> dict[str, Any]:
    result = person.types("models", "--json", *options)
    assert result.exit_code == 0, result.output
    return {one["preset"] or one["model"]: one for one in json.loads(result.stdout)}


def test_every_preset_is_listed_with_what_is_known_of_it(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123")
    found = listed(person)
    assert set(found) == set(PRESETS)
    assert found["gpt-4o-mini"] == {
        "preset": "gpt-4o-mini",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "context_window": 128_000,
        "structured": "json_schema",
        "input_per_million_usd": 0.15,
        "output_per_million_usd": 0.6,
        "key_variable": "OPENAI_API_KEY",
        "key_is_set": True,
    }
    assert found["claude-haiku"]["key_is_set"] is False
    assert found["ollama-llama-8b"]["key_is_set"] is None
    text = person.types("models").stdout
    assert "sk-canary" not in text
    assert "ANTHROPIC_API_KEY is not set" in text
    assert "none needed" in text


def test_presets_of_ones_own_come_first(person: Person) -> None:
    (person.folder / "presets.yaml").write_text("labeller: ollama/qwen3:8b\n")
    lines = person.types("models").stdout.splitlines()
    assert lines[1].split()[:3] == ["labeller", "ollama", "qwen3:8b"]
    assert str(person.folder / "presets.yaml") in lines[-1]


def test_a_wrong_preset_of_ones_own_is_told_with_file_and_line(person: Person) -> None:
    (person.folder / "presets.yaml").write_text("labeller: ollma/qwen3:8b\n")
    result = person.types("models")
    assert result.exit_code == 1
    assert "presets.yaml:1: `llm` is 'ollma/qwen3:8b', and 'ollma' is no provider" in result.output


def test_all_models_of_a_provider_are_spelt_as_it_spells_them(person: Person) -> None:
    found = listed(person, "--provider", "together")
    assert found["meta-llama/Llama-3.3-70B-Instruct-Turbo"]["input_per_million_usd"] == 0.88
    shown = person.types("models", "--provider", "groq").stdout
    assert shown.startswith("model ")
    assert "openai/gpt-oss-120b" in shown


def test_models_that_openrouter_has_listed_since_are_among_them(person: Person) -> None:
    from ondine_dagster.engine.catalogue import Catalogues
    from ondine_dagster.engine.transport import Reply

    entry = {"id": "new/model", "context_length": 5000, "pricing": {"prompt": "0.000001"}}
    body = json.dumps({"data": [entry]}).encode()
    folder = person.settings.data_dir / "catalogues"
    lists = Catalogues(folder, lambda url, headers, secrets: Reply(200, {}, body))
    lists.get("https://openrouter.ai/api/v1/models", {})
    found = listed(person, "--provider", "openrouter")["new/model"]
    assert (found["context_window"], found["input_per_million_usd"]) == (5000, 1)
    assert found["output_per_million_usd"] is None
    assert "new/model" in person.types("models", "--provider", "openrouter").stdout


def test_a_provider_that_is_none_or_has_no_list_is_told(person: Person) -> None:
    result = person.types("models", "--provider", "gorq")
    assert result.exit_code == 1
    assert "gorq is no provider. Did you mean groq?" in result.output
    assert "Nothing is known of the models of vllm" in (
        person.types("models", "--provider", "vllm").stdout
    )


# doctor


def test_the_models_of_azure_are_those_behind_its_deployments(person: Person) -> None:
    shown = " ".join(person.types("models", "--provider", "azure").stdout.split())
    assert "name the model behind one in llm.azure.model" in shown
    assert "models --provider openai" in shown


def test_doctor_asks_whether_the_model_is_there(person: Person, simulator: Simulator) -> None:
    person.write(1)
    found = person.types("doctor", str(person.declared_in)).stdout
    assert f"ok    provider     {simulator.base_url} has demo-model" in found
    simulator.settings = replace(simulator.settings, model="another")
    found = person.types("doctor", str(person.declared_in)).stdout
    assert f"warn  provider     {simulator.base_url} does not list demo-model" in found
    assert simulator.bill.totals.requests == 0


def test_doctor_finds_a_key_that_is_refused(
    person: Person, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.settings = replace(simulator.settings, api_key="the-good-one")
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-canary-0123")
    person.write(1)
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 1
    assert "FAIL  provider" in result.stdout
    assert "is the key in OPENAI_COMPATIBLE_API_KEY right?" in result.stdout
    assert "sk-canary" not in result.stdout


def test_doctor_asks_the_fallback_too(person: Person, simulator: Simulator) -> None:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    second = {
        "provider": "groq",
        "name": "demo-modle",
        "base_url": simulator.base_url,
        "prices": prices,
    }
    first = {
        "provider": "vllm",
        "name": "demo-model",
        "base_url": simulator.base_url,
        "prices": prices,
        "fallback": second,
    }
    person.write(1, llm=first)
    result = person.types("doctor", str(person.declared_in))
    assert f"{simulator.base_url} has no model demo-modle" in result.stdout
    assert result.exit_code == 1


def test_doctor_asks_nobody_elsewhere_without_a_key(person: Person) -> None:
    assert "OPENAI_API_KEY" not in os.environ
    person.write(1, llm="openai/gpt-4o-mini")
    found = person.types("doctor", str(person.declared_in)).stdout
    assert "https://api.openai.com/v1 was not asked" in found
