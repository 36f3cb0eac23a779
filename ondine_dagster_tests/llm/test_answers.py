"""Every way to read an answer: what is taken, what is rejected, and that nothing crashes."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from ondine_dagster import patterns
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.pydantic_model import fields_of
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.spec import Output
from ondine_dagster_tests import own_answers
from ondine_dagster_tests.own_answers import Invoice

OWN = "ondine_dagster_tests.own_answers"


def reader(code: Any = None, **output: Any) -> AnswerReader:
    return AnswerReader(Output.model_validate(output), code)


def function(name: str, **output: Any) -> AnswerReader:
    return reader(getattr(own_answers, name), function=f"{OWN}:{name}", **output)


def invoices(**output: Any) -> AnswerReader:
    declared = Output.model_validate({"model": f"{OWN}:Invoice", **output})
    return AnswerReader(declared.with_fields(fields_of(Invoice, "Invoice")), Invoice)


def code_of(found: object) -> ErrorCode:
    assert isinstance(found, Rejection), found
    return found.code


# nested fields

NESTED = {
    "who": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "required": False},
        },
    },
    "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
    "grid": {
        "type": "array",
        "required": False,
        "items": {"type": "array", "items": {"type": "number", "required": False}},
    },
}


def test_nested_values_are_taken_as_declared_and_nothing_else() -> None:
    text = '{"who": {"name": "A", "more": 1}, "tags": ["a", "b"], "grid": [[1, null], []]}'
    assert reader(fields=NESTED).read(text) == {
        "who": {"name": "A", "age": None},
        "tags": ["a", "b"],
        "grid": [[1.0, None], []],
    }


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"who": []}, ErrorCode.FIELD_WRONG_TYPE, "field `who` is [], wanted an object"),
        ({"who": {"age": 1}}, ErrorCode.FIELD_MISSING, "`who.name` is missing"),
        ({"who": {"name": "A", "age": -1}}, ErrorCode.FIELD_OUT_OF_RANGE, "`who.age` is -1"),
        ({"tags": "a"}, ErrorCode.FIELD_WRONG_TYPE, "field `tags` is 'a', wanted an array"),
        ({"tags": ["a", "c"]}, ErrorCode.FIELD_NOT_IN_ENUM, "`tags[]` is 'c'"),
        ({"tags": [None]}, ErrorCode.FIELD_MISSING, "`tags[]` is missing or null"),
        ({"grid": [["x"]]}, ErrorCode.FIELD_WRONG_TYPE, "`grid[][]` is 'x', wanted a number"),
    ],
)
def test_a_wrong_value_inside_is_rejected_with_its_place(
    changed: dict[str, Any], code: ErrorCode, said: str
) -> None:
    answer = {"who": {"name": "A"}, "tags": []} | changed
    found = reader(fields=NESTED).read(json.dumps(answer))
    assert code_of(found) is code
    assert isinstance(found, Rejection)
    assert said in found.message


def test_a_value_that_is_nested_without_end_is_shown_in_few_words() -> None:
    found = reader(fields=NESTED).read('{"who": ' + "[" * 190 + "]" * 190 + "}")
    assert isinstance(found, Rejection)
    assert len(found.message) < 150


def test_other_words_for_a_value_are_united_before_it_is_checked() -> None:
    mood = {"type": "string", "enum": ["good", "bad"], "synonyms": {"good": ["Great", "👍"]}}
    read = reader(fields={"mood": mood}).read
    assert [read(json.dumps({"mood": word})) for word in ("good", " GREAT!", "👍", "Bad.")] == [
        {"mood": "good"},
        {"mood": "good"},
        {"mood": "good"},
        {"mood": "bad"},
    ]
    assert code_of(read('{"mood": "fine"}')) is ErrorCode.FIELD_NOT_IN_ENUM


# a Pydantic model


def test_a_model_reads_what_its_schema_asks_for() -> None:
    read = invoices().read
    line = {"article": "x", "amount": 2}
    answer = {"number": "a-1", "currency": "EUR", "lines": [line]}
    assert read(json.dumps(answer)) == {
        "number": "A-1",  # its validator writes capitals
        "currency": "EUR",
        "lines": [{**line, "discount": None}],
    }


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"number": "1"}, ErrorCode.ANSWER_NOT_VALID, "number: String should match"),
        ({"lines": [{"amount": 1}]}, ErrorCode.ANSWER_NOT_VALID, "lines.0.article: Field required"),
        ({"currency": "GBP"}, ErrorCode.ANSWER_NOT_VALID, "currency: Input should be"),
    ],
)
def test_what_a_model_refuses_is_rejected_with_its_words(
    changed: dict[str, Any], code: ErrorCode, said: str
) -> None:
    answer = {"number": "A-1", "currency": "EUR", "lines": []} | changed
    found = invoices().read(json.dumps(answer))
    assert code_of(found) is code
    assert isinstance(found, Rejection)
    assert said in found.message
    assert found.error_class is ErrorClass.ROW_RETRYABLE


def test_a_model_sees_a_repaired_answer() -> None:
    flags: list[str] = []
    read = invoices(repair=["fences", "trailing_commas"]).read
    text = '```json\n{"number": "A-1", "currency": "EUR", "lines": [],}\n```'
    assert isinstance(read(text, flags), dict)
    assert flags == ["repaired_fences", "repaired_trailing_commas"]


def test_a_model_sees_broken_characters_as_such() -> None:
    answer = r'{"number": "A-1", "currency": "EUR", "lines": [{"article": "\ud83d", "amount": 1}]}'
    flags: list[str] = []
    found = invoices().read(answer, flags)
    assert isinstance(found, dict)
    assert found["lines"][0]["article"] == "\ufffd"
    assert flags == ["characters_replaced"]


# JSON, patterns, choices, functions, text


@pytest.mark.parametrize("text", ['{"a": [1, null]}', "[1]", '"x"', "7", "null", "true"])
def test_any_json_is_kept_as_json(text: str) -> None:
    found = reader(format="json").read(text)
    assert isinstance(found, dict)
    assert json.loads(str(found["response"])) == json.loads(text)


def test_columns_are_taken_out_of_json() -> None:
    types = {"a": "integer", "b": "json", "c": "string"}
    read = reader(format="json", types=types).read
    assert read('{"a": 1, "b": {"x": [2]}, "c": null, "d": 4}') == {
        "a": 1,
        "b": '{"x":[2]}',
        "c": None,
    }
    assert code_of(read('{"a": 1, "b": 2}')) is ErrorCode.FIELD_MISSING
    assert code_of(read("[1]")) is ErrorCode.ANSWER_NOT_OBJECT
    assert code_of(read('{"a": 1, "b": 2, "c": 3}')) is ErrorCode.FIELD_WRONG_TYPE


STARS = "(?P<label>good|bad)[^-+0-9]*(?P<stars>[-+0-9.eE]+)?( (?P<sure>true|false))?"


def test_the_groups_of_a_pattern_become_columns_of_their_types() -> None:
    read = reader(pattern=STARS, types={"stars": "integer", "sure": "boolean"}).read
    assert read("I say: good, 4 true") == {"label": "good", "stars": 4, "sure": True}
    assert read("bad") == {"label": "bad", "stars": None, "sure": None}
    assert code_of(read("fine, 4")) is ErrorCode.ANSWER_NOT_MATCHED
    for text in ("4.5", "99999999999999999999", "+-"):
        assert code_of(read(f"good {text}")) is ErrorCode.FIELD_WRONG_TYPE
    fractions = reader(pattern=STARS, types={"stars": "number"}).read
    found = fractions("good 4.5e1")
    assert isinstance(found, dict)
    assert found["stars"] == 45.0
    assert code_of(fractions("good 1e999")) is ErrorCode.FIELD_WRONG_TYPE


CHOICE = {"positive": ["good", "not bad"], "negative": ["bad", "悪い", "👎"], "neutral": []}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("positive", "positive"),
        (" **Positive.**\n", "positive"),
        ("GOOD", "positive"),
        ("Not bad!", "positive"),
        ("👎", "negative"),
        ("<think>good?</think>neutral", "neutral"),
        ("```\nbad\n```", "negative"),
        ("It is good.", None),
        ("", None),
        ("goods", None),
    ],
)
def test_a_whole_answer_is_one_of_the_choices(text: str, value: str | None) -> None:
    found = reader(choice=CHOICE, column="mood").read(text)
    assert found == {"mood": value} if value else code_of(found) is ErrorCode.ANSWER_NOT_MATCHED


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It is good.", "positive"),
        ("Good, really good", "positive"),
        ("Well, not bad at all.", "positive"),  # the longest word counts, not the `bad` inside
        ("とても悪いです", "negative"),  # no spaces between words
        ("goods", None),
        ("good or bad", None),
        ("no idea", None),
    ],
)
def test_a_choice_is_found_among_other_words_where_that_is_declared(
    text: str, value: str | None
) -> None:
    found = reader(choice={"values": CHOICE, "anywhere": True}).read(text)
    assert found == {"response": value} if value else code_of(found) is ErrorCode.ANSWER_NOT_MATCHED


def test_a_function_of_ones_own_gives_the_value_or_the_columns() -> None:
    assert function("first_word", column="word").read("a b") == {"word": "a"}
    types = {"words": "integer", "first": "string", "all": "json"}
    assert function("count_words", types=types).read("a b") == {
        "words": 2,
        "first": "a",
        "all": '["a","b"]',
    }


def test_what_a_function_refuses_or_fails_at_is_a_rejected_row() -> None:
    refused = function("first_word").read(" ")
    failed = function("last_word").read(" ")
    assert refused == Rejection(ErrorCode.ANSWER_NOT_VALID, "there is no word")
    assert isinstance(failed, Rejection)
    assert failed.code is ErrorCode.FUNCTION_FAILED
    assert failed.error_class is ErrorClass.ROW  # a new answer does not put code right
    assert "IndexError: list index out of range" in failed.message
    wrong = function("first_word", types={"a": "string"}).read("x")
    assert code_of(wrong) is ErrorCode.FUNCTION_FAILED
    assert "in own_answers.py, line " in failed.message
    undeclared = function("count_words").read("x")
    assert isinstance(undeclared, Rejection)
    assert (undeclared.code, undeclared.error_class) == (failed.code, failed.error_class)
    assert "it returned what is not declared: field `response` is {" in undeclared.message


def test_even_an_exit_of_a_function_is_a_rejected_row() -> None:
    def leave(text: str) -> str:
        raise SystemExit(text)

    found = reader(leave, function=f"{OWN}:first_word").read("bye")
    assert code_of(found) is ErrorCode.FUNCTION_FAILED


def test_plain_text_is_left_as_it_is_unless_a_repair_is_declared() -> None:
    text = "<think>hm</think>\n```sql\nSELECT 1\n```"
    assert reader().read(text) == {"response": text}
    flags: list[str] = []
    assert reader(repair=["thoughts", "fences"]).read(text, flags) == {"response": "SELECT 1"}
    assert flags == ["repaired_thoughts", "repaired_fences"]


# repairs

REPAIRS = ["thoughts", "fences", "trailing_commas", "prose"]


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ('{"x": "a"}', []),
        ('```json\n{"x": "a"}\n```', ["fences"]),
        ('<think>\n{"x": "b"}\n</think>\n\n{"x": "a"}', ["thoughts"]),
        ('<think>{</think>```\n{"x": "a"}```', ["thoughts", "fences"]),
        ('{"x": "a",}', ["trailing_commas"]),
        ('{"x": "a", "y": [1, {"z": ",}",},],}', ["trailing_commas"]),
        ('Here it is: {"x": "a"}. Ask me more!', ["prose"]),
        ('Sure! ```json\n{"x": "a",}\n``` Done.', ["prose", "trailing_commas"]),
        ('[note] so {"x": "a"}', ["prose"]),
    ],
)
def test_a_repair_is_used_only_where_it_is_declared_and_is_noted(
    text: str, repairs: list[str]
) -> None:
    fields = {"x": {"type": "string"}}
    flags: list[str] = []
    assert reader(fields=fields, repair=REPAIRS).read(text, flags) == {"x": "a"}
    assert flags == [f"repaired_{one}" for one in repairs]
    for left_out in repairs:
        others = [one for one in REPAIRS if one != left_out]
        if left_out == "fences" and "thoughts" in repairs:
            continue  # what is left after the thoughts is a fence, and so prose round an object
        found = reader(fields=fields, repair=others).read(text)
        assert isinstance(found, Rejection) or left_out in ("fences", "thoughts")
    assert isinstance(reader(fields=fields, repair=[]).read(text), Rejection) == bool(repairs)


@pytest.mark.parametrize(
    "text",
    [
        '{"x": "a"',
        '{"x": {"x": "a"}',  # cut off: the object inside is not the answer
        '[{"x": "a"}',
        '[1, {"x": "a"}',
        'So: {"x": "a"} or {"x": "b"}',
        '"y": {"x": "a"}}',
        '{"x": "a"}, {"x": "b"}',
        '{"x": "a",,}',
        "{'x': 'a'}",
        '{"x": "a}',
        'So: {"x": "a", "y": NaN}',
    ],
)
def test_no_repair_completes_an_answer_or_chooses_among_several(text: str) -> None:
    flags: list[str] = []
    found = reader(fields={"x": {"type": "string"}}, repair=REPAIRS).read(text, flags)
    assert isinstance(found, Rejection)
    assert not flags


READERS = [
    reader(fields=NESTED, repair=REPAIRS),
    invoices(repair=REPAIRS),
    reader(format="json", repair=REPAIRS),
    reader(format="json", types={"who": "json", "n": "number"}, repair=REPAIRS),
    reader(pattern=STARS, types={"stars": "number", "sure": "boolean"}),
    reader(choice={"values": CHOICE, "anywhere": True}),
    function("count_words", types={"words": "integer"}),
    reader(repair=["thoughts", "fences"]),
]
PIECES = st.sampled_from(
    [
        *(
            '{"who": ',
            '{"name": "A"}',
            ', "tags": []',
            "}",
            "[",
            "]",
            ",",
            '"',
            "\\",
            "\\ud83d",
            ":",
        ),
        *(
            "NaN",
            "-Infinity",
            "```json\n",
            "```",
            "</think>",
            "good",
            "1e999",
            "\x00",
            "\ud800",
            "悪い",
        ),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {"who": VALUES, "tags": VALUES}, optional={"grid": VALUES, "number": VALUES, "lines": VALUES}
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.lists(PIECES).map("".join), st.text(), VALUES.map(json.dumps), ANSWERS.map(json.dumps)
    )
)
def test_no_answer_crashes_a_reader(text: str) -> None:
    for one in READERS:
        flags: list[str] = []
        found = one.read(text, flags)
        if isinstance(found, Rejection):
            found.message.encode()
            assert len(found.message) < 1000
            assert not flags
        else:
            # what a table keeps: no half characters, no NaN
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def test_a_long_answer_that_is_no_json_is_rejected_at_once() -> None:
    read = reader(fields={"x": {"type": "string"}}, repair=REPAIRS).read
    for text in ('{"' + '\\"' * 300_000, "{" * 300_000, '{"a":' * 100_000, "," * 500_000):
        assert isinstance(read(text), Rejection)


# what providers refuse of a model


def _model(**fields: Any) -> Any:
    return create_model("Odd", **fields)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (dict[str, int], "is a mapping of any names"),
        (list, "is a list of anything"),
        (int | str, "may be of several types"),
        (Any, "may be anything"),
        (tuple[int, str], "needs 'prefixItems'"),
    ],
)
def test_what_providers_refuse_is_refused_before_anything_is_asked(kind: Any, said: str) -> None:
    with pytest.raises(OndineError, match=r"output\.model: m:Odd, field 'x'") as caught:
        fields_of(_model(x=(kind, ...)), "m:Odd")
    assert said in str(caught.value)


def test_a_model_that_holds_itself_is_refused() -> None:
    class Tree(BaseModel):
        name: str
        below: list[Tree]

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    with pytest.raises(OndineError, match="holds itself"):
        fields_of(Tree, "m:Tree")


def test_a_format_is_told_in_words() -> None:
    day = fields_of(_model(day=(date, Field(description="When?"))), "m:Odd")["day"]
    assert (day.type, day.description) == ("string", "When?, format: date")


def test_the_fields_of_a_model_are_sent_as_its_schema_says() -> None:
    fields = fields_of(Invoice, "Invoice")
    assert fields["currency"].enum == ("EUR", "USD")
    line = fields["lines"].items
    assert line is not None
    assert line.description == "One line of an invoice."
    amount = line.properties["amount"]
    assert (amount.minimum, amount.description) == (1, "How many pieces.")
    assert not line.properties["discount"].required


@pytest.mark.parametrize(
    "output",
    [
        {"pattern": "(?P<label>(x+x+)+y)"},
        {"fields": {"label": {"type": "string", "accept": {"pattern": "(x+x+)+y"}}}},
    ],
)
def test_a_pattern_that_would_not_end_rejects_the_row_that_is_not_asked_again(
    output: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "MOST_SECONDS", 0.03)
    text = "x" * 5000
    found = reader(**output).read(json.dumps({"label": text}) if "fields" in output else text)
    assert code_of(found) is ErrorCode.PATTERN_TOO_SLOW
    assert isinstance(found, Rejection) and found.error_class is ErrorClass.ROW
    assert "(x+x+)+y" in found.message
