"""Checks the value of a declared field: its type, what the model may give, what is accepted.

A value is returned as its column keeps it, with other words for it replaced and broken characters
marked; anything else is rejected with the field and the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Never

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.rejection import reject, shown
from ondine_dagster.patterns import OwnPattern
from ondine_dagster.spec import AcceptList, AcceptPattern, AcceptRange, OutputField
from ondine_dagster.spec.choice import same_word
from ondine_dagster.spec.output_field import NestedField
from ondine_dagster.wording import listed

Value = str | int | float | bool | list[Any] | dict[str, Any] | None
Checker = Callable[[Any], Value]
_INT64_BOUND = 2**63


def checker(name: str, field: NestedField) -> Checker:
    """Return what checks a value of `field`, which messages call `name`."""
    read = type_checker(name, field)
    checks = [*_wire_checks(name, field)]
    synonyms = None
    if isinstance(field, OutputField):
        checks += _accept_checks(name, field)
        synonyms = _united(field)
    if not checks and synonyms is None:
        return read

    def check(value: Any) -> Value:
        found = read(value)
        if synonyms is not None and isinstance(found, str):
            found = synonyms(found)
        for one in checks:
            one(found)
        return found

    return check


def type_checker(name: str, field: NestedField) -> Checker:
    """Return what checks the type of a value, and of all that it holds."""
    if field.type == "object":
        return _object(name, field)
    if field.type == "array":
        assert field.items is not None
        return _array(f"{name}[]", field.items)
    return scalar_checker(name, field.type)


def scalar_checker(name: str, kind: str) -> Checker:
    """Return what checks that a value is a string, an integer, a number or a boolean."""
    read = _READERS[kind]
    return lambda value: read(name, value)


def _object(name: str, field: NestedField) -> Checker:
    parts = [
        (key, part.required, checker(f"{name}.{key}", part))
        for key, part in field.properties.items()
    ]

    def check(value: Any) -> Value:
        if not isinstance(value, dict):
            _wrong_type(name, "an object", value)
        found: dict[str, Any] = {}
        for key, required, read in parts:
            own = value.get(key)
            if own is None and required:
                missing(f"{name}.{key}")
            found[key] = None if own is None else read(own)
        return found

    return check


def _array(name: str, items: NestedField) -> Checker:
    read = checker(name, items)

    def check(value: Any) -> Value:
        if not isinstance(value, list):
            _wrong_type(name.removesuffix("[]"), "an array", value)
        if items.required and None in value:
            missing(name)
        return [None if one is None else read(one) for one in value]

    return check


def missing(name: str) -> Never:
    """Reject an answer without a field that is required."""
    reject(ErrorCode.FIELD_MISSING, f"field `{name}` is missing or null")


def text_of(value: str) -> str:
    """Return a text with half a surrogate pair, which no table can keep, as U+FFFD."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        _wrong_type(name, "a string", value)
    return text_of(value)


def _integer(name: str, value: Any) -> int:
    # JSON knows one kind of number: 7.0 is an integer, as JSON Schema has it
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not -_INT64_BOUND <= value < _INT64_BOUND:
        _wrong_type(name, "a 64-bit integer", value)
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong_type(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _wrong_type(name, "a finite number", value)
    return number


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _wrong_type(name, "true or false", value)
    return value


def _wrong_type(name: str, wanted: str, value: Any) -> Never:
    reject(ErrorCode.FIELD_WRONG_TYPE, f"field `{name}` is {shown(value)}, wanted {wanted}")


_READERS: dict[str, Callable[[str, Any], Value]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}


def _united(field: OutputField) -> Callable[[str], str] | None:
    """Return what puts a value in the place of other words for it."""
    if field.synonyms is None:
        return None
    values = [*(str(one) for one in field.enum or ()), *field.synonyms]
    meant = {same_word(word): value for value, words in field.synonyms.items() for word in words}
    meant |= {same_word(value): value for value in values}
    return lambda text: meant.get(same_word(text), text)


def _wire_checks(name: str, field: NestedField) -> list[Callable[[Any], None]]:
    checks: list[Callable[[Any], None]] = []
    if field.enum is not None:
        checks.append(_one_of(name, field.enum, ErrorCode.FIELD_NOT_IN_ENUM))
    if field.minimum is not None or field.maximum is not None:
        bounds = (field.minimum, field.maximum)
        checks.append(_in_range(name, *bounds, ErrorCode.FIELD_OUT_OF_RANGE))
    return checks


def _accept_checks(name: str, field: OutputField) -> list[Callable[[Any], None]]:
    accept = field.accept
    if isinstance(accept, AcceptList):
        return [_one_of(name, accept.values, ErrorCode.FIELD_NOT_ACCEPTED)]
    if isinstance(accept, AcceptRange):
        bounds = (accept.minimum, accept.maximum)
        return [_in_range(name, *bounds, ErrorCode.FIELD_NOT_ACCEPTED)]
    if isinstance(accept, AcceptPattern):
        return [_matches(name, OwnPattern(accept.pattern))]
    return []


def _one_of(name: str, allowed: tuple[Any, ...], code: ErrorCode) -> Callable[[Any], None]:
    known = frozenset(allowed)
    names = listed(allowed, 20)

    def check(value: Any) -> None:
        if value not in known:
            reject(code, f"field `{name}` is {shown(value)}, not one of {names}")

    return check


def _in_range(
    name: str, low: float | None, high: float | None, code: ErrorCode
) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if (low is not None and value < low) or (high is not None and value > high):
            reject(code, f"field `{name}` is {shown(value)}, outside {low} to {high}")

    return check


def _matches(name: str, pattern: OwnPattern) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if pattern.fullmatch(value) is None:
            reject(
                ErrorCode.FIELD_NOT_ACCEPTED,
                f"field `{name}` is {shown(value)}, which does not match {pattern.pattern}",
            )

    return check
