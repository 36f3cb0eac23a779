"""Turns what pydantic refuses into sentences for the person who wrote the declaration.

Owns `FieldProblem` and `format_errors`, used for YAML, the command line and Python alike. Every
sentence names the field, the value and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ondine_dagster.spec.keys import refusal

Location = tuple[str | int, ...]
_LONGEST_VALUE = 80
_SECRET_KEY = re.compile(r"(api_?keys?|token|secret|password|credentials?)$", re.IGNORECASE)
# what a key or a login in a URL looks like, wherever it was pasted
_SECRET_VALUE = re.compile(
    r"(?<=://)[^\s/@]+@|\b(?:sk|gsk|xai|hf|ghp|glpat|xox[abp])[-_][\w-]{12,}|\beyJ[\w-]{16,}[\w.-]*"
)


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong: where it is, what to say about it, and the value found there.

    `message` is a whole sentence that already names `path` and, unless it may be a secret, the
    value. `location` is the path as keys and list positions, for finding the line in a file.
    """

    path: str
    message: str
    value: object
    location: Location


def format_errors(error: ValidationError) -> list[FieldProblem]:
    """Return the problems of a refused declaration, in the order in which they were found."""
    problems = []
    for detail in error.errors():
        location = _own_location(detail["loc"])
        value = None if _may_be_secret(location) else detail.get("input")
        problems.append(FieldProblem(dotted(location), detail["msg"], value, location))
    return problems


def dotted(location: Location) -> str:
    """Return a location as people write it: `output.fields.score.enum[2]`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


def shown(value: object) -> str:
    """Return a value as it may stand in a message: short, on one line, without keys and logins."""
    if value is None:
        return "empty"
    text = str(value) if isinstance(value, Decimal) else repr(value)
    text = _SECRET_VALUE.sub("***", text)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def refused_at(location: Location, text: str, value: object) -> ValidationError:
    """Return an error about a part of a model, for validators that see the whole model.

    `text` follows the field's path in the sentence: "is 3; it must be ...".
    """
    detail = InitErrorDetails(type=_sentence(location, text), loc=location, input=value)
    return ValidationError.from_exception_data("declaration", [detail], hide_input=True)


def readable(
    error: ValidationError, title: str, section: Location, advise: Callable[[str], str]
) -> ValidationError:
    """Return the same refusal in our words, with paths that start at the declaration.

    `section` is where the model stands in a declaration. A nested model has already put its own
    errors into words; here their paths grow by what the outer model knows. `advise` tells what to
    do about a key that the model does not have.
    """
    details = [_reworded(detail, section, advise) for detail in error.errors()]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def _reworded(
    detail: ErrorDetails, section: Location, advise: Callable[[str], str]
) -> InitErrorDetails:
    location = _own_location(detail["loc"])
    whole = (*section, *location)
    context = detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        custom = _extra_key(whole, advise)
    elif detail["type"] == "unknown_key":
        custom = _unknown_key(whole, context["advice"])
    elif detail["type"] == "refused":
        custom = _sentence(whole, context["text"])
    else:
        custom = _sentence(whole, _text(detail, whole))
    return InitErrorDetails(type=custom, loc=location, input=detail.get("input"))


def _extra_key(location: Location, advise: Callable[[str], str]) -> PydanticCustomError:
    known = refusal(dotted(location))
    if known:
        return _sentence(location, known)
    return _unknown_key(location, advise(str(location[-1])))


def _sentence(location: Location, text: str) -> PydanticCustomError:
    message = f"`{dotted(location)}` {text}" if location else f"the declaration {text}"
    return PydanticCustomError("refused", "{message}", {"message": message, "text": text})


def _unknown_key(location: Location, advice: str) -> PydanticCustomError:
    place = dotted(location[:-1]) or "the declaration"
    message = f"unknown key `{location[-1]}` in {place}; {advice}"
    return PydanticCustomError("unknown_key", "{message}", {"message": message, "advice": advice})


def _own_location(location: Location) -> Location:
    """Drop what pydantic adds for itself: the mark of a mapping's key."""
    return tuple(step for step in location if step != "[key]")


def _may_be_secret(location: Location) -> bool:
    return any(isinstance(step, str) and _SECRET_KEY.search(step) for step in location[-1:])


def _text(detail: ErrorDetails, location: Location) -> str:
    """Return what follows the path in the sentence about one of pydantic's own errors."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing; it is required"
    if kind in _SECTION_TYPES and detail.get("input") is None:
        return "is empty; write its settings below it, indented, or remove it"
    if detail["loc"][-1:] == ("[key]",) and kind != "literal_error":
        return 'has a name that is not text; put it in quotes, as in "yes" or "1"'
    expected = _EXPECTED.get(kind)
    right = expected(context) if expected else detail["msg"][:1].lower() + detail["msg"][1:]
    return f"is {shown(detail.get('input'))}; it must be {right}"


def _choice(context: Mapping[str, Any]) -> str:
    expected: str = context["expected"]
    return f"one of {expected}" if " or " in expected else expected


_SECTION_TYPES = ("model_type", "model_attributes_type", "dict_type")
_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "string_type": lambda _: "text (in quotes, if YAML would read it as something else)",
    "int_type": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a smaller whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "literal_error": _choice,
    "greater_than": lambda context: f"more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
    "string_too_short": lambda _: "text that is not empty",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping of names",
    "model_type": lambda _: "a mapping with keys of its own",
    "model_attributes_type": lambda _: "a mapping with keys of its own",
}
