"""The files of a prompt: found beside the declaration, never outside, and read without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prompt_texts import PromptTexts
from ondine_dagster.spec import Prompt
from ondine_dagster.storage.prompt_files import read_prompt


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project whose declarations stand in `defs`, beside a secret that is none of its."""
    project = tmp_path / "project"
    (project / "defs").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("password")
    return project


def read(project: Path, **prompt: Any) -> PromptTexts:
    declared = Prompt.model_validate({"template": "{{ a }}", **prompt})
    return read_prompt(declared, project / "defs" / "defs.yaml", project)


def test_a_file_is_found_beside_the_declaration_first_then_in_the_project(project: Path) -> None:
    (project / "system.txt").write_text("of the project\n")
    assert read(project, system_file="system.txt").system == "of the project"
    (project / "defs" / "system.txt").write_text("beside\n")
    assert read(project, system_file="system.txt").system == "beside"
    assert read(project, system_file="../system.txt").system == "of the project"


def test_a_text_is_what_its_author_wrote(project: Path) -> None:
    text = "\ufeffŽ \r\n\r\n{{ a }}  \n\n"
    (project / "one.txt").write_bytes(text.encode())
    found = read(project, template=None, template_file="one.txt")
    assert found.template == "Ž \n\n{{ a }}  \n"


@pytest.mark.parametrize("path", ["../../secret.txt", "link.txt", "folder/secret.txt", None])
def test_no_path_and_no_link_leads_out_of_the_project(project: Path, path: str | None) -> None:
    outside = project.parent / "secret.txt"
    (project / "defs" / "link.txt").symlink_to(outside)
    (project / "defs" / "folder").symlink_to(project.parent)
    for setting in ("system_file", "examples_file"):
        if setting == "examples_file":
            outside = project.parent / "secret.json"
            outside.write_text("[]")
        asked = (path or str(outside)).replace(".txt", outside.suffix)
        if asked == "link.json":
            (project / "defs" / asked).symlink_to(outside)
        with pytest.raises(OndineError, match="outside of the project") as refused:
            read(project, **{setting: asked})
        assert "password" not in str(refused.value)
    with pytest.raises(OndineError, match="outside of the project"):
        read(project, template="{% include 'x' %}", partials={"x": "../../secret.txt"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "is no UTF-8 text"),
        (b" \n", "is empty"),
        (b"a {{", r"\(prompt.system\) is no valid Jinja template"),
        (b"{a}", "has {a} beside Jinja's {{"),
    ],
)
def test_a_file_that_is_no_template_is_refused(project: Path, content: bytes, says: str) -> None:
    (project / "s.txt").write_bytes(content)
    with pytest.raises(OndineError, match=says):
        read(project, system_file="s.txt")


def test_a_missing_file_is_told_with_the_places(project: Path) -> None:
    with pytest.raises(
        OndineError, match=r"prompt\.system_file: there is no file 'no\.txt'"
    ) as told:
        read(project, system_file="no.txt")
    assert f"Tried: {project / 'defs' / 'no.txt'}, {project / 'no.txt'}" in str(told.value)


def test_the_style_is_that_of_all_texts(project: Path) -> None:
    (project / "s.txt").write_text("In {lang}.")
    assert read(project, template="{a}", system_file="s.txt").style == "plain"
    (project / "p.txt").write_text("{lang}")
    with pytest.raises(OndineError, match="beside Jinja's"):
        read(project, template="{% include 'p' %}", partials={"p": "p.txt"})


EXAMPLES = [{"input": "a", "output": "b"}, {"input": {"a": "ж"}, "output": {"x": 1}}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.json", json.dumps(EXAMPLES)),
        ("e.jsonl", "\n".join(json.dumps(one) for one in EXAMPLES) + "\n"),
        (
            "e.yaml",
            "- {input: a, output: b}\n- input: {a: ж}\n  output: {x: 1}\n",
        ),
    ],
)
def test_examples_are_read_from_each_kind_of_file(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text, encoding="utf-8")
    found = read(project, examples_file=name).examples
    assert [one.model_dump() for one in found] == EXAMPLES


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("e.json", "{}", "must hold a list of examples"),
        ("e.json", "[", "Expecting value"),
        ("e.jsonl", '{"input": "a", "output": "b"}\n{', "line 2 is no JSON"),
        ("e.yaml", "- {", "is no YAML"),
        ("e.json", '[{"input": "a"}]', "e.json, example 1: .*output` is missing"),
        ("e.json", '[{"input": "a", "output": 3}]', "example 1: .*output` is 3"),
        ("e.json", '[{"input": "a", "output": "b", "id": 1}]', "example 1: unknown key `id`"),
        ("e.json", "[7]", "example 1: is no mapping"),
    ],
)
def test_wrong_examples_are_told_with_file_and_place(
    project: Path, name: str, text: str, says: str
) -> None:
    (project / name).write_text(text)
    with pytest.raises(OndineError, match=says):
        read(project, examples_file=name)
