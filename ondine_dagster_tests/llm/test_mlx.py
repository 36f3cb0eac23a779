"""Models in this process. mlx-lm itself runs on Apple silicon only: a stand-in takes its place."""

from __future__ import annotations

import json
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from doc_pages import ROOT
from jinja2 import TemplateError
from pydantic import ValidationError

from ondine_dagster.engine.catalogue import Catalogues
from ondine_dagster.engine.lookup import look_up
from ondine_dagster.engine.preflight import Preflight
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.mlx import MLX
from ondine_dagster.llm.provider import at_once
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import Llm, Output
from ondine_dagster.spec.providers import PROVIDERS
from ondine_dagster_tests.engine.harness import Harness, feeds, question, questions

NAME = "mlx-community/Some-Model-4bit"
FIELDS = Output.model_validate({"fields": {"label": {"type": "string", "enum": ["a", "b"]}}}).fields


@dataclass
class StandIn:
    """The four functions of mlx-lm that are used; `heard` is how they were called."""

    answer: Any = "an answer"
    finish: str = "stop"
    heard: list[dict[str, Any]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    at_once: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ("mlx_lm", "mlx_lm.sample_utils", "mlx", "mlx.core")
        made: dict[str, Any] = {name: ModuleType(name) for name in names}
        made["mlx_lm"].load = self.load
        made["mlx_lm"].stream_generate = self.stream_generate
        made["mlx_lm.sample_utils"].make_sampler = lambda **declared: declared
        made["mlx.core"].random = SimpleNamespace(seed=self.seeds.append)
        for name, module in made.items():
            monkeypatch.setitem(sys.modules, name, module)

    def load(self, name: str) -> tuple[object, StandIn]:
        self.loads.append(name)
        return "weights", self

    def apply_chat_template(
        self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool
    ) -> list[int]:
        assert add_generation_prompt
        self.heard.append({"messages": messages})
        return [1, 2, 3]

    def stream_generate(
        self, model: object, tokenizer: object, prompt: list[int], **rest: Any
    ) -> Iterator[SimpleNamespace]:
        assert (model, tokenizer, prompt) == ("weights", self, [1, 2, 3])
        self.at_once += 1
        assert self.at_once == 1
        self.threads.add(threading.get_ident())
        self.heard[-1] |= rest
        if isinstance(self.answer, Exception):
            raise self.answer
        for n, piece in enumerate([self.answer[:4], self.answer[4:]], 1):
            finish = self.finish if n == 2 else None
            yield SimpleNamespace(
                text=piece, prompt_tokens=3, generation_tokens=n, finish_reason=finish
            )
        self.at_once -= 1


@pytest.fixture
def mlx(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    made.install(monkeypatch)
    return made


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path, "http://127.0.0.1:9/v1")
    made.provider = provider()
    yield made
    made.close()


def llm(**changes: Any) -> Llm:
    return Llm.model_validate({"provider": "mlx", "name": NAME} | changes)


def provider(fields: Any = None, **changes: Any) -> MLX:
    made = build_provider(llm(**changes), wire_schema(fields or {}))
    assert isinstance(made, MLX)
    return made


def test_rows_are_answered_in_this_process_by_one_thread(mlx: StandIn, harness: Harness) -> None:
    run = harness.run(questions(20), concurrency=at_once(harness.provider, 16))
    assert run.texts == ["an answer"] * 20
    assert {(row.model_served, row.cost, row.cost_source) for row in run.rows} == {
        (NAME, 0, "computed")
    }
    assert (run.rows[0].usage.prompt_tokens, run.rows[0].usage.completion_tokens) == (3, 2)
    assert mlx.loads == [NAME]
    assert len(mlx.threads) == 1
    assert harness.states() == {"settled": 20}
    assert harness.problems() == []


@pytest.mark.behaviour("B-1")
def test_the_ledger_answers_the_second_run_and_no_model_is_loaded(
    mlx: StandIn, harness: Harness
) -> None:
    first = harness.run(questions(5))
    second = harness.run(questions(5))
    assert second.texts == first.texts
    assert mlx.loads == [NAME]
    assert len(mlx.heard) == 5


def test_sampling_and_ceiling_reach_the_model(mlx: StandIn) -> None:
    made = provider(temperature=0.5, top_p=0.9, seed=-1, max_tokens=7)
    made.load()(made.body('[{"content":"x","role":"user"}]', 7))
    assert mlx.heard == [
        {
            "messages": [{"content": "x", "role": "user"}],
            "max_tokens": 7,
            "sampler": {"temp": 0.5, "top_p": 0.9},
        }
    ]
    assert mlx.seeds == [2**64 - 1]
    made = provider(max_tokens_field="max_completion_tokens")
    made.load()(made.body('[{"content":"x","role":"user"}]', 9))
    assert (mlx.heard[-1]["max_tokens"], mlx.heard[-1]["sampler"]) == (9, {})
    assert len(mlx.seeds) == 1


def test_the_fields_are_told_in_words_and_the_answer_is_checked(
    mlx: StandIn, harness: Harness
) -> None:
    mlx.answer = '{"label": "a"}'
    harness.provider = provider(FIELDS)
    (row,) = harness.run([question("which?")]).rows
    assert row.text == '{"label": "a"}'
    system, message = mlx.heard[0]["messages"]
    assert message == {"content": "which?", "role": "user"}
    schema = json.loads(system["content"].partition("\n")[2])
    assert schema["properties"] == {"label": {"type": "string", "enum": ["a", "b"]}}


def test_what_would_constrain_the_answer_is_refused() -> None:
    assert provider(FIELDS, structured="prompt").name == "mlx"
    with pytest.raises(OndineError, match="nothing constrains an answer of mlx-lm"):
        provider(FIELDS, structured="json_schema")


def test_an_answer_at_the_ceiling_is_cut_off(mlx: StandIn, harness: Harness) -> None:
    mlx.finish = "length"
    (row,) = harness.run([question("x")]).rows
    assert (row.outcome, row.code, row.text) == (Outcome.ERROR, ErrorCode.TRUNCATED, "an answer")


def test_without_the_package_the_run_stops_before_the_first_row(
    harness: Harness, tmp_path: Path
) -> None:
    lists = Catalogues(tmp_path, look_up)
    engine = harness.engine()
    engine._preflight = Preflight(llm(), harness.provider, (), lists, asks=True, with_fields=False)
    ended = [row for chunk in engine.run(feeds(questions(20))) for row in chunk.outcomes]
    assert {row.outcome for row in ended} == {Outcome.NOT_ATTEMPTED}
    assert engine.stopped is not None
    assert "pip install 'ondine_dagster[mlx]'" in engine.stopped.message
    assert harness.attempts() == []


def test_the_package_is_the_one_that_the_provider_imports() -> None:
    assert PROVIDERS["mlx"].package == "mlx_lm"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (needed,) = declared["optional-dependencies"]["mlx"]
    assert needed.startswith("mlx-lm>=")


@pytest.mark.parametrize("error", [FileNotFoundError("no such folder"), ValueError("model type")])
def test_a_model_that_cannot_be_loaded_stops_the_run(
    mlx: StandIn, harness: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(name: str) -> None:
        raise error

    monkeypatch.setattr(sys.modules["mlx_lm"], "load", load)
    run = harness.run(questions(3))
    assert run.engine.stopped is not None
    assert f"mlx-lm cannot load llm.name {NAME}" in run.engine.stopped.message
    assert str(error) in run.engine.stopped.message


def test_messages_that_the_template_does_not_take_stop_the_run(
    mlx: StandIn, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TemplateError("System role not supported")

    monkeypatch.setattr(StandIn, "apply_chat_template", refuse)
    run = harness.run(questions(3))
    assert run.engine.stopped is not None
    assert "System role not supported" in run.engine.stopped.message


def test_what_mlx_itself_breaks_at_is_raised_and_no_answer_is_lost(
    mlx: StandIn, harness: Harness
) -> None:
    harness.run(questions(2))
    mlx.answer = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        harness.run(questions(4))
    mlx.at_once, mlx.answer = 0, "an answer"
    again = harness.run(questions(4))
    assert again.texts == ["an answer"] * 4
    assert harness.problems() == []


@pytest.mark.parametrize("name", ["base_url", "key_variable"])
def test_what_a_server_has_is_refused(name: str) -> None:
    value = {"base_url": "http://127.0.0.1:1/v1", "key_variable": "MLX_KEY"}[name]
    with pytest.raises(ValidationError, match=f"{name}.*mlx runs in this process: leave it out"):
        llm(**{name: value})
