"""The fields of a Pydantic model of the user's own, as if they were declared.

What providers take of a JSON schema is little: types, nesting, enums, bounds, descriptions. Those
are sent. What only narrows a value (lengths, patterns, formats, validators) is left to the model's
validation, and what providers refuse is refused here, before a request is paid.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor
from typing import Any, Never

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import OutputField, format_errors

_Schema = Mapping[str, Any]
_SCALARS = ("string", "integer", "number", "boolean")
_REFUSED = ("oneOf", "not", "if", "prefixItems", "patternProperties", "dependentSchemas")


def fields_of(model: Any, path: str) -> dict[str, OutputField]:
    """Return the fields of the class that `path` names.

    Raises OndineError where it is no Pydantic model, or has what no provider can be asked for.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise OndineError(f"output.model: {path} is no Pydantic model (a subclass of BaseModel)")
    try:
        schema = model.model_json_schema()
        written = model.model_json_schema(mode="serialization")
    except PydanticUserError as error:
        told = str(error).partition("\n")[0]
        raise OndineError(f"output.model: {path} has no JSON schema: {told}") from None
    root = _Reader(path, schema)
    top = root.resolved(schema, path, ())
    properties = top.get("properties") or {}
    if not properties:
        raise OndineError(f"output.model: {path} has no fields of its own to ask for")
    kept = _Reader(path, written).resolved(written, path, ()).get("properties", {})
    if renamed := [name for name in properties if name not in kept]:
        raise OndineError(
            f"output.model: {path} reads {renamed[0]!r} and writes it under another name; give "
            "the field one alias for both"
        )
    shapes = {name: root.shape(part, name, (path,)) for name, part in properties.items()}
    fields = {}
    for name, shape in shapes.items():
        try:
            fields[name] = OutputField.model_validate(shape)
        except ValidationError as error:
            problem = format_errors(error)[0]
            raise OndineError(f"output.model: {path}, field {name!r}: {problem.message}") from None
    return fields


class _Reader:
    """Walks through one schema; `where` is the place in messages, `outer` what leads there."""

    def __init__(self, path: str, root: _Schema) -> None:
        self._path = path
        self._definitions: Mapping[str, _Schema] = root.get("$defs", {})

    def resolved(self, schema: _Schema, where: str, outer: tuple[str, ...]) -> _Schema:
        """Follow references, keeping what stands beside them."""
        while (reference := self._reference(schema)) is not None:
            name = reference.rpartition("/")[2]
            if name in outer:
                self._refuse(where, f"{name} holds itself, which providers refuse")
            outer = (*outer, name)
            beside = {key: v for key, v in schema.items() if key not in ("$ref", "allOf")}
            schema = {**self._definitions[name], **beside, "x-outer": outer}
        return schema

    @staticmethod
    def _reference(schema: _Schema) -> str | None:
        whole = schema.get("allOf", ())
        if "$ref" not in schema and len(whole) == 1:
            schema = whole[0]
        found: str | None = schema.get("$ref")
        return found

    def shape(self, schema: _Schema, where: str, outer: tuple[str, ...]) -> dict[str, Any]:
        """Return a part of the schema as a field is declared."""
        beside, required = schema, True
        if "anyOf" in schema:
            branches = [one for one in schema["anyOf"] if one.get("type") != "null"]
            required = len(branches) == len(schema["anyOf"])
            if len(branches) != 1:
                self._refuse(where, "may be of several types; declare one (or make it optional)")
            schema = branches[0]
        schema = self.resolved(schema, where, outer)
        outer = schema.get("x-outer", outer)
        shape = self._of_type(schema, where, outer)
        description = str(beside.get("description") or schema.get("description") or "").strip()
        # not every provider takes a format: it is told in words
        words = [description, f"format: {schema['format']}" if "format" in schema else ""]
        if told := ", ".join(filter(None, words)):
            shape["description"] = told
        return shape if required else {**shape, "required": False}

    def _of_type(self, schema: _Schema, where: str, outer: tuple[str, ...]) -> dict[str, Any]:
        if strange := [key for key in _REFUSED if key in schema]:
            self._refuse(where, f"needs {strange[0]!r} in its JSON schema, which providers refuse")
        kind = schema.get("type") or _type_of(schema)
        if kind == "object":
            properties = schema.get("properties")
            if not properties:
                self._refuse(where, "is a mapping of any names; declare a model with its fields")
            inside = {k: self.shape(p, f"{where}.{k}", outer) for k, p in properties.items()}
            return {"type": kind, "properties": inside}
        if kind == "array":
            if not schema.get("items"):
                self._refuse(where, "is a list of anything; say what its items are")
            return {"type": kind, "items": self.shape(schema["items"], f"{where}[]", outer)}
        if kind not in _SCALARS:
            self._refuse(where, "may be anything; declare a type that JSON schema can tell")
        return {"type": kind, **_values(schema, kind)}

    def _refuse(self, where: str, why: str) -> Never:
        raise OndineError(f"output.model: {self._path}, field {where!r} {why}")


def _type_of(schema: _Schema) -> str | None:
    """Return the type that all listed values have."""
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    kinds = {names.get(type(value)) for value in values}
    return kinds.pop() if len(kinds) == 1 else None


def _values(schema: _Schema, kind: str) -> dict[str, Any]:
    """Return enum and bounds; those of a boolean, and open bounds of fractions, stay local."""
    found: dict[str, Any] = {}
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if listed and kind != "boolean":
        found["enum"] = listed
    if kind not in ("integer", "number"):
        return found
    whole = kind == "integer"
    for key, nearest in (("minimum", ceil), ("maximum", floor)):
        if key in schema:
            found[key] = nearest(schema[key]) if whole else schema[key]
    if whole and "exclusiveMinimum" in schema:
        found["minimum"] = floor(schema["exclusiveMinimum"]) + 1
    if whole and "exclusiveMaximum" in schema:
        found["maximum"] = ceil(schema["exclusiveMaximum"]) - 1
    return found
