"""Reads the text of an answer into the values of the declared output columns.

One reader for each way to read that `output` declares. None of them raises for bad data: what
cannot be read is a `Rejection`, and the row ends with its raw text in `rejected_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any, Never

from pydantic import BaseModel, ValidationError

from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.field_checks import (
    Checker,
    Value,
    checker,
    missing,
    scalar_checker,
    text_of,
)
from ondine_dagster.llm.rejection import Rejected, Rejection, printable, reject, shown
from ondine_dagster.llm.repair import read_json, unwrapped
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.patterns import OwnPattern, PatternTooSlow
from ondine_dagster.spec import Output, OutputField, Repair
from ondine_dagster.spec.choice import folded, same_word

Values = dict[str, Value]
_Read = Callable[[str, list[str]], Values]
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)


class AnswerReader:
    """Turns an answer's text into the values of the declared output columns."""

    def __init__(self, output: Output, code: Any = None) -> None:
        """`code` is the model or the function that `output` names; its fields are in `output`."""
        make = _READERS[output.kind]
        self._read = make(output, code)

    def read(self, text: str, flags: list[str] | None = None) -> Values | Rejection:
        """Return column -> value, or why the answer is rejected. Never raises for bad data.

        What had to be repaired is added to `flags`, where the answer is accepted.
        """
        used: list[str] = []
        try:
            values = self._read(text_of(text), used)
        except Rejected as rejected:
            return rejected.rejection
        except PatternTooSlow as slow:
            return Rejection(ErrorCode.PATTERN_TOO_SLOW, str(slow), ErrorClass.ROW)
        if used and flags is not None:
            flags += used
        return values


def _text(output: Output, _: Any) -> _Read:
    column, repairs = output.column, output.repairs
    return lambda text, flags: {column: unwrapped(text, repairs, flags) if repairs else text}


def _fields(output: Output, _: Any) -> _Read:
    take, repairs = _checked(output.fields), output.repairs
    return lambda text, flags: take(_object(text, repairs, flags))


def _checked(fields: Mapping[str, OutputField]) -> Callable[[dict[str, Any]], Values]:
    checks = [
        (name, field.column or name, field.required, checker(name, field))
        for name, field in fields.items()
    ]

    def take(answer: dict[str, Any]) -> Values:
        values: Values = {}
        for name, column, required, check in checks:
            value = answer.get(name)
            if value is not None:
                values[column] = check(value)
            elif required:
                missing(name)
            else:
                values[column] = None
        return values

    return take


def _object(text: str, repairs: Collection[Repair], flags: list[str]) -> dict[str, Any]:
    parsed = read_json(text, repairs, flags)
    if not isinstance(parsed, dict):
        kind = type(parsed).__name__
        reject(ErrorCode.ANSWER_NOT_OBJECT, f"the answer is JSON but no object: {kind}")
    return parsed


def _model(output: Output, model: type[BaseModel]) -> _Read:
    take, repairs = _checked(output.fields), output.repairs

    def read(text: str, flags: list[str]) -> Values:
        answer = _object(text, repairs, flags)
        # broken characters, which JSON text cannot hold, are marked before the model sees them
        json_text = text_of(compact_json(answer)) if flags else text
        try:
            found = model.model_validate_json(json_text).model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            reject(ErrorCode.ANSWER_NOT_VALID, _told(error))
        except Exception as error:  # noqa: BLE001 (validators of the user's own may raise anything)
            _failed("output.model", error)
        return take(found)

    return read


def _told(error: ValidationError) -> str:
    """Return what a model refuses: the first few places, each with the reason."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in problems[:5]]
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return printable("; ".join(told)) + more


def _failed(setting: str, error: BaseException) -> Never:
    own = next((one for one in extract_tb(error.__traceback__)[1:] if _is_own(one.filename)), None)
    place = f" in {Path(own.filename).name}, line {own.lineno}" if own else ""
    told = f"the code of {setting} failed{place}: {type(error).__name__}: {error}"
    reject(ErrorCode.FUNCTION_FAILED, printable(told), ErrorClass.ROW)


def _is_own(file: str) -> bool:
    """Return whether code is neither ours nor of a library that the user's own code calls."""
    return "site-packages" not in file and file != __file__


def _json(output: Output, _: Any) -> _Read:
    repairs, column = output.repairs, output.column
    if not output.types:
        return lambda text, flags: {column: _json_text(column, read_json(text, repairs, flags))}
    take = _typed(output.types)
    return lambda text, flags: take(_object(text, repairs, flags))


def _typed(types: Mapping[str, str]) -> Callable[[Mapping[str, Any]], Values]:
    checks = [(name, _json_checker(name, kind)) for name, kind in types.items()]

    def take(found: Mapping[str, Any]) -> Values:
        values: Values = {}
        for name, check in checks:
            if name not in found:
                reject(ErrorCode.FIELD_MISSING, f"`{name}` is missing; null would be taken")
            value = found[name]
            values[name] = None if value is None else check(value)
        return values

    return take


def _json_checker(name: str, kind: str) -> Checker:
    if kind == "json":
        return lambda value: _json_text(name, value)
    return scalar_checker(name, kind)


def _json_text(name: str, value: Any) -> str:
    try:
        return text_of(compact_json(value))
    except (TypeError, ValueError, RecursionError) as error:  # of a function's, or nested too deep
        reject(ErrorCode.FIELD_WRONG_TYPE, f"`{name}` cannot be kept as JSON: {error}")


def _pattern(output: Output, _: Any) -> _Read:
    assert output.pattern is not None
    search, repairs = OwnPattern(output.pattern).search, output.repairs
    readers = [(name, _GROUP_READERS[kind]) for name, kind in output.column_types().items()]

    def read(text: str, flags: list[str]) -> Values:
        found = search(unwrapped(text, repairs, flags))
        if found is None:
            reject(
                ErrorCode.ANSWER_NOT_MATCHED,
                f"the answer is {shown(text)}, in which output.pattern matches nothing",
            )
        groups = found.groupdict()
        return {name: _read_group(name, groups[name], reader) for name, reader in readers}

    return read


def _read_group(name: str, text: str | None, reader: Callable[[str], Value]) -> Value:
    if text is None:
        return None
    try:
        return reader(text)
    except ValueError as error:
        reject(ErrorCode.FIELD_WRONG_TYPE, f"group `{name}` is {shown(text)}, wanted {error}")


def _whole_number(text: str) -> int:
    number = int(text) if _WHOLE.fullmatch(text.strip()) else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError("a 64-bit integer")
    return number


def _fraction(text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text.strip()) else float("inf")
    if abs(number) == float("inf"):
        raise ValueError("a finite number, such as 1.5")
    return number


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false"):
        raise ValueError("true or false")
    return word == "true"


_GROUP_READERS: dict[str, Callable[[str], Value]] = {
    "string": text_of,
    "integer": _whole_number,
    "number": _fraction,
    "boolean": _truth,
}


def _choice(output: Output, _: Any) -> _Read:
    assert output.choice is not None
    column, repairs, anywhere = output.column, output.repairs, output.choice.anywhere
    words = [(word, value) for value, own in output.choice.values.items() for word in (value, *own)]
    meant = {same_word(word): value for word, value in words}
    named = re.compile("|".join(map(_as_a_word, sorted(meant, key=len, reverse=True))))
    choices = ", ".join(output.choice.values)

    def read(text: str, flags: list[str]) -> Values:
        answer = unwrapped(text, repairs, flags)
        value = meant.get(same_word(answer))
        if value is None and anywhere:
            found = {meant[one] for one in named.findall(folded(answer))}
            value = found.pop() if len(found) == 1 else None
            if found:
                reject(
                    ErrorCode.ANSWER_NOT_MATCHED,
                    f"the answer is {shown(answer)}, which names more than one of {choices}",
                )
        if value is None:
            reject(
                ErrorCode.ANSWER_NOT_MATCHED,
                f"the answer is {shown(answer)}, which is none of {choices}",
            )
        return {column: value}

    return read


def _as_a_word(word: str) -> str:
    """Return a pattern of the word by itself; scripts without spaces between words have none."""
    before = r"(?<!\w)" if _stands_apart(word[0]) else ""
    after = r"(?!\w)" if _stands_apart(word[-1]) else ""
    return f"{before}{re.escape(word)}{after}"


def _stands_apart(character: str) -> bool:
    return character.isalnum() and ord(character) < 0x2E80


def _function(output: Output, function: Callable[[str], Any]) -> _Read:
    repairs, types, column = output.repairs, output.types, output.column
    take = _typed(types or {column: "string"})

    def read(text: str, flags: list[str]) -> Values:
        try:
            found = function(unwrapped(text, repairs, flags))
        except ValueError as error:  # how a function says that it does not accept an answer
            reject(ErrorCode.ANSWER_NOT_VALID, printable(str(error)) or "the function refused it")
        except (Exception, SystemExit) as error:  # noqa: BLE001 (the user's own code)
            _failed("output.function", error)
        if not types:
            found = {column: found}
        elif not isinstance(found, Mapping):
            _failed("output.function", TypeError(f"it returned {shown(found)}, no mapping"))
        try:
            return take(found)
        except Rejected as error:  # it may refuse an answer, but not return what was not declared
            _failed("output.function", TypeError(f"it returned what is not declared: {error}"))

    return read


_READERS: dict[str, Callable[[Output, Any], _Read]] = {
    "fields": _fields,
    "model": _model,
    "json": _json,
    "pattern": _pattern,
    "choice": _choice,
    "function": _function,
    "text": _text,
}
