"""Declared output fields as the JSON schema that goes over the wire.

What is local only (`column`, `synonyms`, `accept`) never appears in it. `llm/answers.py` reads what
comes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ondine_dagster.spec.output_field import NestedField


def compact_json(value: Any) -> str:
    """Return JSON without spaces, non-Latin text as text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def wire_schema(fields: Mapping[str, NestedField]) -> dict[str, Any] | None:
    """Return the JSON schema for `fields`, or None where the answer is plain text.

    Strict mode wants every property required, so an optional field is a nullable one
    (https://platform.openai.com/docs/guides/structured-outputs#supported-schemas).
    """
    return _object(fields) if fields else None


def _object(fields: Mapping[str, NestedField]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(field) for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def _property(field: NestedField) -> dict[str, Any]:
    schema = _object(field.properties) if field.properties else {}
    schema = {"type": field.type if field.required else [field.type, "null"], **_but_type(schema)}
    if field.items is not None:
        schema["items"] = _property(field.items)
    if field.description is not None:
        schema["description"] = field.description
    if field.enum is not None:
        schema["enum"] = [*field.enum] if field.required else [*field.enum, None]
    if field.minimum is not None:
        schema["minimum"] = field.minimum
    if field.maximum is not None:
        schema["maximum"] = field.maximum
    return schema


def _but_type(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "type"}
