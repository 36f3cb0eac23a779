"""The list of settings is complete, and each can be changed."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

from ondine_dagster.spec import Dataset
from ondine_dagster.spec.fields import all_fields, declared_fields, field_at
from ondine_dagster_tests.spec.changes import CHANGES

SHAPE = ("type", "enum", "minimum", "maximum", "description", "required")


@pytest.mark.behaviour("E-4")
def test_the_table_of_changes_names_every_setting_exactly_once() -> None:
    assert sorted(CHANGES) == sorted(declared_fields(Dataset))


@pytest.mark.behaviour("E-4")
@pytest.mark.parametrize("path", CHANGES)
def test_a_change_of_a_setting_reaches_the_dataset(path: str) -> None:
    before, after = CHANGES[path].datasets()
    assert before != after


def test_every_setting_says_what_it_means_and_what_a_change_costs() -> None:
    for field in all_fields(Dataset):
        assert field.info.description, field.path
        assert field.is_section == (field.role is None), field.path


def test_every_example_of_a_setting_is_a_right_value() -> None:
    for field in all_fields(Dataset):
        for example in field.info.examples or ():
            declared: Any = Annotated[field.info.annotation, *field.info.metadata]
            TypeAdapter(declared).validate_python(example)


def test_what_is_asked_is_told_apart_from_what_is_local() -> None:
    roles = {field.path: field.role for field in all_fields(Dataset)}
    questions = {path for path, role in roles.items() if role == "question"}
    assert questions == {
        "privacy.prompt",
        "privacy.detect",
        "privacy.patterns",
        "prompt.style",
        "prompt.partials",
        "prompt.system",
        "prompt.system_file",
        "prompt.template",
        "prompt.template_file",
        "prompt.examples",
        "prompt.examples.input",
        "prompt.examples.output",
        "prompt.examples_file",
        "prompt.examples_column",
        "prompt.clean.*.unicode",
        "prompt.clean.*.control_characters",
        "prompt.clean.*.white_space",
        "prompt.clean.*.truncate_tokens",
        "prompt.clean.*.marker",
        "prompt.images.column",
        "prompt.images.fetch",
        "prompt.images.detail",
        "prompt.documents.column",
        "prompt.documents.fetch",
        "llm",
        "llm.preset",
        "llm.provider",
        "llm.name",
        "llm.identity",
        "llm.temperature",
        "llm.top_p",
        "llm.seed",
        "llm.anthropic.effort",
        "llm.anthropic.thinking",
        "llm.groq.reasoning_effort",
        "llm.openai.reasoning_effort",
        "llm.openrouter.reasoning_effort",
        "llm.openrouter.models",
        "output.fields.*.type",
        "output.fields.*.enum",
        "output.fields.*.minimum",
        "output.fields.*.maximum",
        "output.fields.*.description",
        "output.fields.*.required",
        "output.model",
        *(f"output.fields.*.properties.*.{key}" for key in SHAPE),
        *(f"output.fields.*.items.{key}" for key in SHAPE),
    }


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("llm",), "llm"),
        (("llm", "temprature"), "llm"),
        (("llm", "name"), "llm.name"),
        (("owners", 0), "owners"),
        (("source", "types", "price"), "source.types"),
        (("output", "fields", "any.name", "enum", 3), "output.fields.*.enum"),
        (("output", "fields", "x", "accept", "pattern"), "output.fields.*.accept.pattern"),
        (("output", "fields", "x", "accept", 0), "output.fields.*.accept"),
    ],
)
def test_a_place_in_a_declaration_belongs_to_a_setting(
    location: tuple[str | int, ...], path: str
) -> None:
    field = field_at(Dataset, location)
    assert field is not None
    assert field.path == path


@pytest.mark.parametrize("location", [(), ("source",), ("backfills",)])
def test_a_place_that_is_no_setting_belongs_to_none(location: tuple[str | int, ...]) -> None:
    assert field_at(Dataset, location) is None
