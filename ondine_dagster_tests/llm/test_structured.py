"""Declared fields: what is asked for on the wire, what is accepted of an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import Output


def reader(**fields: Any) -> AnswerReader:
    return AnswerReader(Output.model_validate({"fields": fields}))


def one(text: str, **field: Any) -> object:
    """Return the value of the only field `x`, or the code of the rejection."""
    found = reader(x=field).read('{"x": ' + text + "}")
    return found.code if isinstance(found, Rejection) else found["x"]


def test_the_wire_schema_is_exactly_the_golden_file() -> None:
    fields = {
        "s": {"type": "string", "description": "Größe"},
        "e": {"type": "string", "enum": ["a", "b"], "required": False},
        "i": {"type": "integer", "minimum": 0, "maximum": 10},
        "n": {"type": "number", "required": False, "minimum": 0.5},
        "b": {"type": "boolean", "column": "flag"},
        "a": {"type": "string", "accept": {"pattern": "[a-z]+"}},
    }
    schema = wire_schema(Output.model_validate({"fields": fields}).fields)
    golden = Path(__file__).with_name("golden") / "wire_schema.json"
    assert json.dumps(schema, indent=2, ensure_ascii=False) + "\n" == golden.read_text("utf-8")


def test_plain_text_has_no_schema_and_one_column() -> None:
    assert wire_schema({}) is None
    output = Output(column="summary")
    assert AnswerReader(output).read('{"not": parsed') == {"summary": '{"not": parsed'}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('"a"', "string", "a"),
        ('""', "string", ""),
        (r'"\ud83d\ude00 caf\u00e9"', "string", "😀 café"),
        (r'"half \ud83d."', "string", "half \ufffd."),
        ('"7"', "string", "7"),
        ("7", "integer", 7),
        ("7.0", "integer", 7),
        ("-0.0", "integer", 0),
        ("9223372036854775807", "integer", 2**63 - 1),
        ("-9223372036854775808", "integer", -(2**63)),
        ("7", "number", 7.0),
        ("1e-3", "number", 0.001),
        ("true", "boolean", True),
    ],
)
def test_a_value_of_the_declared_type_is_taken(text: str, kind: str, value: object) -> None:
    found = one(text, type=kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.behaviour("E-12")
@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("7", "string", ErrorCode.FIELD_WRONG_TYPE),
        ("[]", "string", ErrorCode.FIELD_WRONG_TYPE),
        ('{"y": 1}', "string", ErrorCode.FIELD_WRONG_TYPE),
        ('"7"', "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("7.5", "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("true", "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("9223372036854775808", "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("9.3e18", "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("1e400", "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("1" * 4000, "integer", ErrorCode.FIELD_WRONG_TYPE),
        ("1e400", "number", ErrorCode.FIELD_WRONG_TYPE),
        ("-1e400", "number", ErrorCode.FIELD_WRONG_TYPE),
        ("1" + "0" * 400, "number", ErrorCode.FIELD_WRONG_TYPE),
        ("true", "number", ErrorCode.FIELD_WRONG_TYPE),
        ('"1"', "number", ErrorCode.FIELD_WRONG_TYPE),
        ("1", "boolean", ErrorCode.FIELD_WRONG_TYPE),
        ('"true"', "boolean", ErrorCode.FIELD_WRONG_TYPE),
        ("[" * 150 + "]" * 150, "number", ErrorCode.FIELD_WRONG_TYPE),
        ("null", "string", ErrorCode.FIELD_MISSING),
        ("NaN", "number", ErrorCode.ANSWER_NOT_FINITE),
        ("-Infinity", "number", ErrorCode.ANSWER_NOT_FINITE),
        ("1" * 5000, "integer", ErrorCode.ANSWER_NOT_JSON),
        ("01", "integer", ErrorCode.ANSWER_NOT_JSON),
        ("[" * 100_000, "string", ErrorCode.ANSWER_NOT_JSON),
    ],
)
def test_any_other_value_is_rejected_with_its_code(text: str, kind: str, code: ErrorCode) -> None:
    assert one(text, type=kind) is code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.ANSWER_NOT_JSON),
        ("positive", ErrorCode.ANSWER_NOT_JSON),
        ('{"x": "a"', ErrorCode.ANSWER_NOT_JSON),
        ('{"x": "a"} done', ErrorCode.ANSWER_NOT_JSON),
        ('Here it is: ```json\n{"x": "a"}\n```', ErrorCode.ANSWER_NOT_JSON),
        ('```json\n{"x": "a"}\n``` done', ErrorCode.ANSWER_NOT_JSON),
        ('```yaml\n{"x": "a"}\n```', ErrorCode.ANSWER_NOT_JSON),
        ('<think>{"x": "a"}', ErrorCode.ANSWER_NOT_JSON),
        ("{'x': 'a'}", ErrorCode.ANSWER_NOT_JSON),
        ('["a"]', ErrorCode.ANSWER_NOT_OBJECT),
        ('"a"', ErrorCode.ANSWER_NOT_OBJECT),
        ("null", ErrorCode.ANSWER_NOT_OBJECT),
        ("{}", ErrorCode.FIELD_MISSING),
        ('{"X": "a"}', ErrorCode.FIELD_MISSING),
    ],
)
def test_an_answer_that_is_no_object_with_the_field_is_rejected(text: str, code: ErrorCode) -> None:
    found = reader(x={"type": "string"}).read(text)
    assert isinstance(found, Rejection)
    assert (found.code, found.error_class) == (code, ErrorClass.ROW_RETRYABLE)


def test_the_last_of_duplicate_keys_counts_and_unknown_ones_do_not() -> None:
    assert reader(x={"type": "integer"}).read('{"x": 1, "y": [2], "x": 3}') == {"x": 3}


def test_an_optional_field_may_be_null_or_absent() -> None:
    read = reader(x={"type": "string", "enum": ["a"], "required": False, "column": "y"}).read
    assert read('{"x": null}') == read("{}") == {"y": None}
    assert isinstance(read('{"x": "b"}'), Rejection)


@pytest.mark.parametrize(
    ("field", "good", "bad", "code"),
    [
        ({"enum": ["a", "b"]}, '"b"', '"c"', ErrorCode.FIELD_NOT_IN_ENUM),
        ({"enum": ["a", "b"]}, '"a"', '"A"', ErrorCode.FIELD_NOT_IN_ENUM),
        ({"type": "integer", "enum": [1, 2]}, "2", "3", ErrorCode.FIELD_NOT_IN_ENUM),
        ({"type": "integer", "minimum": 1}, "1", "0", ErrorCode.FIELD_OUT_OF_RANGE),
        ({"type": "number", "maximum": 1}, "1.0", "1.01", ErrorCode.FIELD_OUT_OF_RANGE),
        ({"accept": ["a"]}, '"a"', '"b"', ErrorCode.FIELD_NOT_ACCEPTED),
        (
            {"type": "integer", "accept": {"minimum": 1, "maximum": 5}},
            "5",
            "6",
            ErrorCode.FIELD_NOT_ACCEPTED,
        ),
        ({"accept": {"pattern": "[a-z]+"}}, '"abc"', '"abc1"', ErrorCode.FIELD_NOT_ACCEPTED),
        ({"accept": {"pattern": "a|ab"}}, '"ab"', '"ab\\n"', ErrorCode.FIELD_NOT_ACCEPTED),
    ],
)
def test_bounds_hold_on_both_sides(
    field: dict[str, Any], good: str, bad: str, code: ErrorCode
) -> None:
    declared = {"type": "string"} | field
    assert not isinstance(one(good, **declared), ErrorCode)
    assert one(bad, **declared) is code


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"x": "a"}\n```',
        '```\n{"x": "a"}```\n',
        '<think>\nit is {"x": "b"}\n</think>\n\n{"x": "a"}',
        'no opening tag: {"x": "b"}</think>```json\n{"x": "a"}\n```',
    ],
)
def test_thoughts_and_a_fence_round_an_answer_are_taken_off(text: str) -> None:
    assert reader(x={"type": "string"}).read(text) == {"x": "a"}


def test_what_looks_like_thoughts_inside_an_answer_is_kept() -> None:
    found = reader(x={"type": "string"}).read('{"x": "a</think>```"}')
    assert found == {"x": "a</think>```"}


def test_a_rejection_says_which_field_has_which_value_in_few_words() -> None:
    found = reader(mood={"type": "integer"}).read(json.dumps({"mood": "x" * 10_000}))
    assert isinstance(found, Rejection)
    assert found.message.startswith("field `mood` is 'xxx")
    assert found.message.endswith("wanted a 64-bit integer")
    assert len(found.message) < 150
    odd = reader(mood={"type": "string", "enum": ["a"]}).read(r'{"mood": "\ud83d\n"}')
    assert isinstance(odd, Rejection)
    odd.message.encode()
