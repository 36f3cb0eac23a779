"""The values that a field may take: which of them belong to which declared type."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from ondine_dagster.spec.problems import shown

FieldType = Literal["string", "integer", "number", "boolean", "object", "array"]
# of a column that is read from a plain text answer; json: any value, kept as JSON text
ColumnType = Literal["string", "integer", "number", "boolean", "json"]
Scalar = str | int | float | bool
_YAML_TRAP = ' (YAML reads yes, no, on and off as true and false: put them in quotes, "yes")'


def _scalar(value: Any) -> Any:
    if not isinstance(value, (str, int, float)) or not _finite(value):
        raise ValueError(f"is {shown(value)}; it must be text, a number, true or false")
    return value


def _finite(value: Scalar) -> bool:
    return not isinstance(value, float) or isfinite(value)


ListedValue = Annotated[Scalar, BeforeValidator(_scalar)]


def belongs(value: Scalar, field_type: str) -> bool:
    """Return whether an answer of this type can be this value. True is no number here."""
    if isinstance(value, bool) or field_type == "boolean":
        return isinstance(value, bool) and field_type == "boolean"
    if field_type == "string":
        return isinstance(value, str)
    if field_type == "integer":
        return isinstance(value, int)
    return field_type == "number" and isinstance(value, (int, float))


def complaint(values: tuple[Scalar, ...], field_type: str) -> str | None:
    """Return what is wrong with a list of values for a field of this type, if anything is."""
    if field_type in ("object", "array", "json"):
        return f"lists values, but an answer of type {field_type} is none of them"
    if not values:
        return "is empty; it must list at least one value, or be left out"
    stranger = next((value for value in values if not belongs(value, field_type)), None)
    if stranger is not None:
        trap = _YAML_TRAP if isinstance(stranger, bool) else ""
        return f"lists {shown(stranger)}; its values must be of type {field_type}{trap}"
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        return f"lists {shown(twice)} twice; it must list each value once"
    return None


def outside(value: Scalar, minimum: float | None, maximum: float | None) -> bool:
    """Return whether a number lies outside the bounds. Text has none."""
    if isinstance(value, (str, bool)):
        return False
    return (minimum is not None and value < minimum) or (maximum is not None and value > maximum)
