"""`prompts`: what decides a question, what is shown of it, and what is cached of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.assets.planning.plan import DatasetPlan, plan_rows
from ondine_dagster.assets.rows.prompt_parts import cache_remarks, parts_of, shown
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.estimates import Estimator
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Dataset
from ondine_dagster_tests.workbench import PROMPTS, RESULTS, Bench, MakeBench, declaration

CLEAN = {"text": {"white_space": "collapse", "truncate_tokens": 8}}
EXAMPLE = {"input": {"text": "so so"}, "output": "fine"}
ROWS = [
    {"id": "a", "text": "[[token=a]]   wide"},
    {"id": "b", "text": "[[token=b]] tidy"},
    {"id": "c", "text": "[[token=c]] a text of more than the few tokens that are wanted"},
    {"id": "d", "text": " "},
]


@pytest.fixture
def pipeline(tmp_path: Path, simulator: Simulator) -> Callable[..., Pipeline]:
    def make(**sections: Any) -> Pipeline:
        dataset = Dataset.model_validate(declaration(simulator, **sections))
        return Pipeline(dataset, tmp_path / "defs.yaml", tmp_path)

    return make


def planned(bench: Bench) -> DatasetPlan:
    snapshot = bench.pipeline.snapshot(bench.lake)
    keys = bench.partitions()
    with reading(bench.data / "ledger.sqlite") as ledger:
        return plan_rows(bench.pipeline, bench.lake, (bench.lake, snapshot), keys, keys, ledger)


def metadata(bench: Bench) -> dict[str, Any]:
    (event,) = bench.events(PROMPTS)
    materialization = event.asset_materialization
    assert materialization is not None
    return {name: one.value for name, one in materialization.metadata.items()}


@pytest.mark.behaviour("E-10")
def test_a_cleaned_prompt_is_counted_shown_and_paid_once(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    prompt = {"system": "Label.", "template": "T: {text}", "examples": [EXAMPLE], "clean": CLEAN}
    bench = make_bench(ROWS, prompt=prompt)
    bench.snapshot()
    counted = {("text", "white_space"): 2, ("text", "truncate_tokens"): 1}
    assert planned(bench).cleaned == counted  # rendered by the plan itself
    bench.run()
    assert charged() == 3
    assert planned(bench).cleaned == counted  # read from the files

    sent = [json.loads(row["messages"]) for row in bench.rows(PROMPTS) if row["messages"]]
    assert [one[-1]["content"] for one in sent] == [
        "T: [[token=a]] wide",
        "T: [[token=b]] tidy",
        "T: [[token=c]] a text of more…",
    ]
    assert all(one[:-1] == sent[0][:-1] for one in sent)
    # the source's own columns stay as they were
    assert {row["id"]: row["text"] for row in bench.rows(RESULTS)} == {
        row["id"]: row["text"] for row in ROWS[:3]
    }

    told = metadata(bench)
    assert told["rows_cleaned"] == "text: 1 truncate_tokens, 2 white_space"
    assert told["rows_not_rendered"] == 1
    assert "**assistant**\n\n```text\nfine\n```" in told["first_prompt"]
    assert "```text\nT: [[token=a]] wide\n```" in told["first_prompt"]

    # the same texts from files are the same questions
    folder = bench.folder
    (folder / "system.txt").write_text("Label.\n")
    (folder / "template.txt").write_text("T: {text}\n")
    (folder / "examples.jsonl").write_text(json.dumps(EXAMPLE) + "\n")
    files = {"system_file": "system.txt", "template_file": "template.txt", "clean": CLEAN}
    before = bench.pipeline.question_version
    bench = make_bench(ROWS, prompt={**files, "examples_file": "examples.jsonl"})
    assert bench.pipeline.question_version == before
    bench.run()
    assert charged() == 0


def test_a_file_is_part_of_the_question(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    prompt = {"template": "{% include 'p' %} {{ text }}", "partials": {"p": "p.txt"}}
    versions = set()
    for text in ("Be kind.", "Be strict.", "Be strict.\n"):
        (tmp_path / "p.txt").write_text(text)
        made = pipeline(prompt=prompt)
        rendered = json.loads(str(made.renderer.render({"text": "x"})))
        assert rendered[-1]["content"] == f"{text.strip()} x"
        versions.add(made.question_version)
    assert len(versions) == 2


def test_a_partial_names_columns_too(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("{{ lang }}{{ mood }}")
    template = "{% set mood = 1 %}{% include 'p' %} {{ text }}"
    made = pipeline(prompt={"template": template, "partials": {"p": "p.txt"}})
    assert made.renderer.columns == {"lang", "text"}
    with pytest.raises(OndineError, match="the prompt names lang, which the source does not have"):
        check_source_columns(made, ["id", "text"])


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"partials": {"p": "p.txt"}}, "prompt.partials has p, which no template includes"),
        (
            {"template": "{% include 'p' %}{{ text }}", "partials": {"p": "loop.txt"}},
            "p includes itself",
        ),
        ({"clean": {"id": {"unicode": "nfc"}}}, "prompt.clean has id, which is not in the prompt"),
        ({"examples": [{"input": {"txt": 1}, "output": "a"}]}, "number 1 cannot be rendered"),
        ({"system": "{{ 1 // 0 }}"}, "prompt.system cannot be rendered: "),
        ({"template": "{text} {label}"}, "names label, .* In plain text {name} is a column"),
    ],
)
def test_what_does_nothing_or_cannot_be_rendered_is_refused(
    pipeline: Callable[..., Pipeline], tmp_path: Path, prompt: dict[str, Any], says: str
) -> None:
    (tmp_path / "p.txt").write_text("x")
    (tmp_path / "loop.txt").write_text("{% include 'p' %}")
    made = pipeline(prompt={"template": "{{ text }}", **prompt})
    with pytest.raises(OndineError, match=says):
        check_source_columns(made, ["id", "text"])


# what is cached


def anthropic(pipeline: Callable[..., Pipeline], **prompt: Any) -> Pipeline:
    llm = {"provider": "anthropic", "name": "claude-sonnet-4-5"}
    return pipeline(prompt={"template": "{{ text }}", **prompt}, llm=llm)


@pytest.mark.parametrize(
    ("prompt", "where"),
    [
        ({"system": "Label."}, "system"),
        ({"system": "Label.", "examples": [EXAMPLE]}, "messages"),
        ({"examples": [EXAMPLE]}, "messages"),
        ({"system": "{{ lang }}", "examples": [EXAMPLE]}, None),
        ({}, None),
    ],
)
def test_the_end_of_what_all_rows_share_is_marked(
    pipeline: Callable[..., Pipeline], prompt: dict[str, Any], where: str | None
) -> None:
    made = anthropic(pipeline, **prompt)
    bodies = [
        json.loads(made.provider.body(str(made.renderer.render({"text": text, "lang": "de"})), 9))
        for text in ("one", "two")
    ]
    for body in bodies:
        *before, own = body["messages"]
        marks = {"system": "cache_control" in str(body.get("system")),
                 "messages": "cache_control" in str(before)}  # fmt: skip
        assert [name for name, there in marks.items() if there] == ([where] if where else [])
        assert own["content"] in ("one", "two")


LONG = "Rules of the shop, one after the other. " * 120  # 1,200 tokens


@pytest.mark.parametrize(
    ("llm", "prompt", "says"),
    [
        ("gpt-4o-mini", {"system": LONG}, None),
        ("gpt-4o-mini", {"template": LONG + "{{ text }}"}, None),
        ("gpt-4o-mini", {"system": "Label."}, "caches them from 1,024 on, so each request pays"),
        ("gpt-4o-mini", {"template": "{{ text }} " + LONG}, "but do not stand at the start"),
        ("gpt-4o-mini", {"system": LONG + "{{ text }}"}, "The system message names text"),
        ("anthropic/claude-sonnet-4-5", {"template": LONG + "{{ text }}"}, "put them into the sys"),
        ("anthropic/claude-haiku-4-5", {"system": LONG}, "from 4,096 on"),
        ("ollama/llama3.1:8b", {"system": "Label."}, None),
    ],
)
def test_what_keeps_a_cache_from_working_is_said(
    pipeline: Callable[..., Pipeline], llm: str, prompt: dict[str, Any], says: str | None
) -> None:
    made = pipeline(llm=llm, prompt={"template": "{{ text }}", **prompt})
    found = [*cache_remarks(made, Estimator(made.provider, None))]
    assert len(found) == (says is not None)
    if says is not None:
        assert says in found[0]


def test_the_parts_of_a_prompt_add_up(pipeline: Callable[..., Pipeline]) -> None:
    made = pipeline(prompt={"system": "Label.", "template": "{{ text }}", "examples": [EXAMPLE]})
    estimator = Estimator(made.provider, None)
    messages = str(made.renderer.render({"text": "x" * 9_000}))
    tokens = parts_of(messages, estimator).tokens
    assert tokens["user"] == 2_250
    assert tokens["all"] == estimator.tokens_of(messages)
    assert sum(tokens.values()) == 2 * tokens["all"]


def test_what_dagster_keeps_of_a_prompt_is_short_and_plain_text(
    pipeline: Callable[..., Pipeline],
) -> None:
    made = pipeline(prompt={"system": "# S", "template": "{{ text }}", "examples": [EXAMPLE] * 9})
    messages = str(made.renderer.render({"text": "````\n# no title" + "x" * 9_000}))
    found = shown(parts_of(messages, Estimator(made.provider, None)))
    assert "and 8 more examples" in found
    assert found.count("so so") == 1
    assert "`````text\n````\n# no title" in found
    assert len(found) < 2_500
