"""A JSON schema as it may constrain an answer of Anthropic's models. Pure.

Without bounds, unions with null and nullable enums
(https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ondine_dagster.llm.packing import nullable
from ondine_dagster.llm.provider import Schema

# A grammar of so many numbers costs nothing to speak of.
_MOST_LISTED = 101


def constraining(schema: Schema) -> Schema:
    """Return the schema of an answer as Anthropic takes it, what it does not take said in words.

    A value that may be null may be left out.
    """
    kind = _kind(schema)
    if kind == "object" and "properties" in schema:
        properties: Mapping[str, Schema] = schema["properties"]
        required = schema.get("required", ())
        return {
            **schema,
            "type": kind,
            "properties": {name: constraining(part) for name, part in properties.items()},
            "required": [name for name in required if not nullable(properties[name])],
        }
    if kind == "array" and "items" in schema:
        return {**schema, "type": kind, "items": constraining(schema["items"])}
    return _value(schema, kind) if isinstance(kind, str) else schema


def _value(schema: Schema, kind: str) -> Schema:
    """Return the schema of a single value; a few whole numbers are listed."""
    listed = [one for one in schema.get("enum", ()) if one is not None]
    listed = listed or [*_few_numbers(schema, kind)]
    bounds = {} if listed else {"at least": schema.get("minimum"), "at most": schema.get("maximum")}
    told = ", ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    description = ". ".join(filter(None, [schema.get("description", "").rstrip("."), told]))
    found: Schema = {"enum": listed} if listed else {"type": kind}
    return {**found, "description": description} if description else found


def _few_numbers(schema: Schema, kind: str) -> Sequence[int]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind != "integer" or low is None or high is None:
        return ()
    numbers = range(int(low), int(high) + 1)
    return numbers if len(numbers) <= _MOST_LISTED else ()


def _kind(schema: Schema) -> Any:
    """Return the type, without null where that is one of two."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    return kind
