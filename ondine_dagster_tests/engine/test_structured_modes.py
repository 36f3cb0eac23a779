"""Declared fields asked for in every way, of servers that speak with an accent, over sockets."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import Simulator, TokenRules
from ondine_dagster.spec import Llm, Output
from ondine_dagster_tests.engine.harness import Harness, Run, question

OUTPUT = Output.model_validate(
    {
        "fields": {
            "mood": {"type": "string", "enum": ["good", "bad", "mixed"]},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False},
        }
    }
)


def run(folder: Path, shape: str, mode: str, *texts: str, **llm: Any) -> tuple[Run, Simulator]:
    """Ask rows of a simulator that bills one token per byte, at the price of its own."""
    with (
        Simulator(shape=shape, tokens=TokenRules(per_byte=True)) as simulator,
        closing(Harness(folder, simulator.base_url)) as harness,
    ):
        declared = {
            "provider": shape,
            "name": "llama3",
            "base_url": simulator.base_url,
            "structured": mode,
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
        }
        harness.provider = build_provider(
            Llm.model_validate(declared | llm), wire_schema(OUTPUT.fields)
        )
        done = harness.run([question(text) for text in texts])
        assert harness.problems() == []
        return done, simulator


@pytest.mark.behaviour("A-24")
@pytest.mark.parametrize("shape", ["ollama", "vllm", "groq"])
@pytest.mark.parametrize("mode", ["json_schema", "json_object", "tools", "prompt"])
def test_fields_come_back_in_every_mode_within_the_bound(
    shape: str, mode: str, tmp_path: Path
) -> None:
    done, simulator = run(tmp_path, shape, mode, "[[token=a]] which?", "[[token=b]] which?")
    assert done.engine.stopped is None, done.engine.stopped
    reader = AnswerReader(OUTPUT)
    for row in done.rows:
        assert row.outcome is Outcome.ANSWERED, row.message
        values = reader.read(row.text or "")
        assert isinstance(values, dict), values
        assert values == json.loads(row.text or "")
    assert simulator.bill.totals.picodollars == sum(row.cost for row in done.rows)


@pytest.mark.parametrize(
    ("fault", "code"), [("length", "truncated"), ("refusal", "refused"), ("null_content", None)]
)
def test_a_fault_in_the_arguments_of_the_tool_ends_the_row(
    fault: str, code: str | None, tmp_path: Path
) -> None:
    done, _ = run(tmp_path, "vllm", "tools", f"[[fault={fault}]] [[token=a]] which?")
    (row,) = done.rows
    assert row.outcome is Outcome.ERROR
    assert row.code == (code or "content_null")


@pytest.mark.parametrize(("shape", "fault"), [("vllm", "404"), ("ollama", "404"), ("vllm", "401")])
def test_an_error_of_a_local_server_is_understood(shape: str, fault: str, tmp_path: Path) -> None:
    done, _ = run(tmp_path, shape, "json_schema", f"[[fault={fault}]] which?")
    assert done.engine.stopped is not None
    assert f"HTTP {fault}: " in done.engine.stopped.message
    assert done.rows[0].unknown_cost == 0
