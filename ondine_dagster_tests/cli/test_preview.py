"""`preview` shows what would be sent and what has no prompt; it asks nobody and changes nothing."""

from __future__ import annotations

import json

import pytest

from ondine_dagster_tests.cli.typing_person import Person

ROWS = [
    {"id": "a", "text": "Fine   shoes.", "n": "1"},
    {"id": "b", "text": "", "n": "2"},
    {"id": "c", "text": "Broken.", "n": "zero"},
    {"id": "d", "text": "Left out.", "n": "4"},
    {"id": "e", "text": "Good.", "n": "5"},
]
PROMPT = {
    "system": "Label.",
    "template": "T: {{ text }}{% if n == 'zero' %}{{ 1 // 0 }}{% endif %}",
    "examples": [{"input": "So so.", "output": "fine"}],
    "clean": {"text": {"white_space": "collapse"}},
}


@pytest.fixture
def wrote(person: Person) -> Person:
    person.write(ROWS, prompt=PROMPT, when="n != '4'", partitions={"rows": 3})
    return person


def test_the_first_prompts_are_shown_and_the_rows_without_one(wrote: Person) -> None:
    result = wrote.types("preview", "notes.yaml", "--rows", "1")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    assert "row 1, partition rows-00000   about system 2, examples 3, user 4, rest " in shown
    spoken = ["[system]", "Label.", "[user]", "So so.", "[assistant]", "fine", "[user]"]
    lines = shown.splitlines()
    assert lines[1:9] == [*spoken, "T: Fine shoes."]
    assert "Good." not in shown
    assert "3 of 5 rows rendered.\n1 row skipped by `when`." in shown
    assert "Rows that prompt.clean changes: text: 1 white_space." in shown
    assert "No prompt for 1 row\n  row 3  render_failed  ZeroDivisionError" in shown
    assert not wrote.settings.data_dir.exists()
    assert wrote.simulator.bill.totals.requests == 0


def test_programs_get_json(wrote: Person) -> None:
    found = json.loads(wrote.types("preview", "notes.yaml", "--json").stdout)
    assert [row["row"] for row in found["rows"]] == [1, 2, 5]
    first = found["rows"][0]
    assert first["messages"][-1] == {"content": "T: Fine shoes.", "role": "user"}
    assert first["tokens"]["all"] == sum(first["tokens"].values()) - first["tokens"]["all"]
    assert (found["looked_at"], found["rendered"], found["skipped"]) == (5, 3, 1)
    assert found["failed"] == {"render_failed": 1}
    assert found["cleaned"] == [{"column": "text", "kind": "white_space", "rows": 1}]


def test_a_partition_may_be_chosen_by_name(wrote: Person) -> None:
    found = json.loads(
        wrote.types("preview", "notes.yaml", "--json", "--partition", "rows-00001").stdout
    )
    assert [row["row"] for row in found["rows"]] == [5]
    refused = wrote.types("preview", "notes.yaml", "--partition", "rows-9")
    assert refused.exit_code == 1
    assert "has no partition rows-9" in refused.output


def test_rows_that_go_together_are_said_to(wrote: Person) -> None:
    fields = {"label": {"type": "string"}}
    example = {"input": "So so.", "output": {"label": "fine"}}
    prompt = {**PROMPT, "examples": [example]}
    wrote.declare(prompt=prompt, output={"fields": fields}, batching={"rows_per_request": 25})
    shown = wrote.types("preview", "notes.yaml", "--rows", "1").stdout
    assert "batching.rows_per_request is 25: several rows go into one request" in shown
    assert "each row's own text under a code" in " ".join(shown.split())
    prompt = {"template": "{{ id }}: {{ text }}"}
    wrote.declare(prompt=prompt, batching={"rows_per_request": 25, "format": "csv"})
    shown = wrote.types("preview", "notes.yaml", "--rows", "1").stdout
    assert "each row's columns (id, text) under a code" in " ".join(shown.split())


def test_a_mistake_is_one_message(wrote: Person) -> None:
    wrote.declare(prompt={"template_file": "no.txt"})
    refused = wrote.types("preview", "notes.yaml")
    assert refused.exit_code == 1
    assert "prompt.template_file: there is no file 'no.txt'" in refused.output
    assert refused.output.count(wrote.declared_in.name) == 1
    (wrote.folder / "rules.txt").write_text("No {braces}.")
    wrote.declare(prompt={"template": "{% include 'r' %}", "partials": {"r": "rules.txt"}})
    for command in ("preview", "plan"):
        refused = wrote.types(command, "notes.yaml")
        assert "the prompt has {braces} beside Jinja's" in refused.output
        assert refused.output.count(wrote.declared_in.name) == 1
