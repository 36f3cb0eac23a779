"""Declarations to test with: one that is right, and the same with one setting changed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from ondine_dagster.spec import Dataset, FieldProblem, format_errors

_RIGHT: dict[str, Any] = {
    "name": "reviews",
    "source": {"path": "reviews.csv", "key": "id"},
    "prompt": {"system": "You label reviews.", "template": "Review: {{ review }}"},
    "llm": {
        "provider": "openai_compatible",
        "name": "my-model",
        "base_url": "http://127.0.0.1:8000/v1",
        "prices": {"input_per_million_usd": 0.15, "output_per_million_usd": "0.60"},
    },
    "output": {
        "fields": {
            "label": {"type": "string", "enum": ["good", "bad"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 10},
            "note": {"type": "string", "required": False},
        }
    },
}


def attributes(**changes: Any) -> dict[str, Any]:
    """Return right attributes; `changes` replace whole sections."""
    return {**deepcopy(_RIGHT), **changes}


def changed(path: str, value: Any, start: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return right attributes with the setting at `path` (`llm.name`) set to `value`."""
    whole = attributes() if start is None else deepcopy(start)
    section = whole
    *sections, key = path.split(".")
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    return whole


def without(path: str) -> dict[str, Any]:
    """Return right attributes with the setting at `path` removed."""
    whole = attributes()
    section = whole
    *sections, key = path.split(".")
    for name in sections:
        section = section[name]
    del section[key]
    return whole


def problems(values: dict[str, Any]) -> list[FieldProblem]:
    """Return what is wrong with the attributes; empty if they are accepted."""
    try:
        Dataset.model_validate(values)
    except ValidationError as error:
        return format_errors(error)
    return []


def only_problem(values: dict[str, Any]) -> FieldProblem:
    """Return the one thing that is wrong with the attributes."""
    found = problems(values)
    assert len(found) == 1, found
    return found[0]
