"""Packs: what is asked for many rows at once, and whose each part of the answer is."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.packing import ItemProblem, new_codes, packable
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.registry import build_packing
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import Output

OUTPUT = Output.model_validate(
    {
        "fields": {
            "label": {"type": "string", "enum": ["good", "bad"]},
            "note": {"type": "string", "required": False},
        }
    }
)
PACKING = build_packing("json", wire_schema(OUTPUT.fields))
PLAIN = build_packing("json", None)


def item(code: Any, label: Any = "good", **more: Any) -> dict[str, Any]:
    return {"id": code, "label": label, "note": None, **more}


def pack(*items: Any) -> str:
    return json.dumps({"answers": items}, ensure_ascii=False)


def said(messages: str) -> str:
    text: str = json.loads(messages)[-1]["content"]
    return text


# the two parts of a row's messages


@pytest.mark.parametrize("system", [None, "", 'Say "role":"user"}], {"content":"x"}.'])
@pytest.mark.parametrize(
    "text", ["", "a", 'He said: ,"role":"user"}] {"content":', "日本語\n\u2028"]
)
def test_messages_are_cut_before_the_last_one(system: str | None, text: str) -> None:
    parts = packable(messages_json(system, text))
    assert parts is not None and parts.text == text
    again = PLAIN.compose(parts.prefix, [("abc", "x")])
    assert json.loads(again)[:-1] == json.loads(messages_json(system, text))[:-1]


def test_a_row_with_an_image_goes_alone() -> None:
    image = Attachment(kind="image", url="https://example.com/a.png")
    assert packable(messages_json("system", "text", [image])) is None


def test_codes_are_short_random_and_different() -> None:
    for count in (1, 50, 500):
        codes = new_codes(count)
        assert len(set(codes)) == count
        assert all(len(code) in (3, 4) and code.isalpha() for code in codes)
    assert new_codes(9, random.Random(1)) == new_codes(9, random.Random(1)) != new_codes(9)
    # so long that one that is made up is in a hundred cases once one of those that were given
    assert [{len(code) for code in new_codes(count)} for count in (68, 69)] == [{3}, {4}]


# what is asked


def test_what_all_rows_share_is_said_once_and_their_letters_are_not_escaped() -> None:
    packing = build_packing(
        "json", wire_schema(OUTPUT.fields), StaticText("Review: ", "\nBe kind.")
    )
    text = said(
        packing.compose(
            "[", [("abc", "Review: très bon\nBe kind."), ("xyz", "Review: 日本\nBe kind.")]
        )
    )
    assert text.count("Review: ") == text.count("\nBe kind.") == 1
    assert '[{"id":"abc","text":"très bon"},{"id":"xyz","text":"日本"}]' in text
    assert "Review: <text>\nBe kind." in text and "2 answers" in text


def test_a_row_that_does_not_begin_like_the_others_is_asked_whole() -> None:
    packing = build_packing("json", None, StaticText("Review: ", "!"))
    text = said(packing.compose("[", [("abc", "Review: a!"), ("xyz", "Review: b")]))
    assert '{"id":"abc","text":"Review: a!"}' in text and "<text>" not in text
    # the ends do not overlap
    assert '"text":"Review: "' in said(
        build_packing("json", None, StaticText("Review: ", " ")).compose("[", [("abc", "Review: ")])
    )


def test_a_text_that_holds_the_place_holder_gets_another_one() -> None:
    packing = build_packing("json", None, StaticText("Fill <text> in: ", ""))
    assert "Fill <text> in: <<text>>" in said(packing.compose("[", [("abc", "Fill <text> in: a")]))


def test_the_schema_of_a_pack_is_one_of_objects_with_codes() -> None:
    row = wire_schema(OUTPUT.fields)
    assert row is not None and PACKING.schema is not None and PLAIN.schema is not None
    listed = PACKING.schema["properties"]["answers"]["items"]
    assert listed["properties"] == {"id": {"type": "string"}, **row["properties"]}
    assert listed["required"] == ["id", "label", "note"] and not listed["additionalProperties"]
    assert PLAIN.schema["properties"]["answers"]["items"]["required"] == ["id", "answer"]


def test_a_field_may_be_called_id() -> None:
    fields = Output.model_validate({"fields": {"id": {"type": "integer"}}}).fields
    packing = build_packing("json", wire_schema(fields))
    answers = packing.split('{"answers":[{"row_id":"abc","id":7}]}', ["abc"], cut=False).answers
    assert answers == {"abc": '{"id":7}'}


# whose answer it is


def test_the_answer_of_a_row_is_what_a_request_for_it_alone_would_have_brought() -> None:
    text = pack(item("xyz", "bad"), item("abc", note="日本 \U0001f600"))
    found = PACKING.split(text, ["abc", "xyz"], cut=False)
    assert found.answers["abc"] == '{"label":"good","note":"日本 \U0001f600"}'
    assert found.problems == {} and found.unknown == 0
    read = AnswerReader(OUTPUT).read
    assert read(found.answers["xyz"]) == {"label": "bad", "note": None}


def test_a_plain_answer_is_its_text() -> None:
    text = '{"answers":[{"id":"abc","answer":"Line 1\\n\\"2\\""},{"id":"xyz","answer":" "}]}'
    found = PLAIN.split(text, ["abc", "xyz"], cut=False)
    assert found.answers == {"abc": 'Line 1\n"2"'}
    assert found.problems == {"xyz": ItemProblem.MALFORMED}


CODES = ["abc", "def", "ghj"]
WHOLE = pack(*map(item, CODES))


def broken(label: str) -> str:
    return WHOLE.replace('"def", "label": "good"', f'"def", {label}')


@pytest.mark.parametrize(
    ("text", "cut", "answered", "problems", "unknown"),
    [
        (WHOLE, False, "abc def ghj", {}, 0),
        (pack(*map(item, reversed(CODES))), False, "abc def ghj", {}, 0),
        (pack(item("abc"), item("ghj")), False, "abc ghj", {"def": "missing"}, 0),
        (pack(*map(item, [*CODES, "def"])), False, "abc ghj", {"def": "repeated"}, 0),
        (pack(*map(item, [*CODES, "def", "def"])), False, "abc ghj", {"def": "repeated"}, 0),
        (pack(item(1), item("2"), item("3")), False, "", dict.fromkeys(CODES, "unknown_code"), 3),
        (pack(item("ABC"), *map(item, CODES[1:])), False, "def ghj", {"abc": "unknown_code"}, 1),
        (pack({"id": "abc", "label": "bad"}, *map(item, CODES[1:])), False, " ".join(CODES), {}, 0),
        (
            pack({"id": "abc", "note": "x"}, *map(item, CODES[1:])),
            False,
            "def ghj",
            {"abc": "malformed"},
            0,
        ),
        (pack("abc", *map(item, CODES[1:])), False, "def ghj", {"abc": "missing"}, 0),
        (json.dumps([*map(item, CODES)]), False, "abc def ghj", {}, 0),
        (json.dumps({"results": [*map(item, CODES)]}), False, "abc def ghj", {}, 0),
        (f"<think>{WHOLE}</think>\n```json\n{WHOLE}\n```", False, "abc def ghj", {}, 0),
        (f"Here you are:\n{WHOLE}\nI hope that {{this}} helps.", False, "abc def ghj", {}, 0),
        (
            WHOLE.replace('"def", "label": "good"', '"def", "label": NaN'),
            False,
            "abc ghj",
            {"def": "malformed"},
            0,
        ),
        (
            WHOLE.replace('"def", "label": "good"', '"def", "label": "so "good""'),
            False,
            "abc ghj",
            {"def": "malformed"},
            0,
        ),
        (WHOLE.replace("},", "}"), False, "abc def ghj", {}, 0),
        (WHOLE[: WHOLE.index("ghj") + 9], True, "abc def", {"ghj": "cut_off"}, 0),
        (WHOLE[: WHOLE.index("ghj") + 2], True, "abc def", {"ghj": "cut_off"}, 0),
        (WHOLE[: WHOLE.index("def") - 3], True, "abc", {"def": "cut_off", "ghj": "cut_off"}, 0),
        ("", False, "", dict.fromkeys(CODES, "missing"), 0),
        ("null", False, "", dict.fromkeys(CODES, "missing"), 0),
        ("[" * 100_000, False, "", dict.fromkeys(CODES, "missing"), 0),
        ('{"id":' * 5_000, True, "", dict.fromkeys(CODES, "cut_off"), 0),
    ],
)
def test_damage_costs_only_the_rows_that_it_touches(
    text: str, cut: bool, answered: str, problems: dict[str, str], unknown: int
) -> None:
    found = PACKING.split(text, CODES, cut=cut)
    assert sorted(found.answers) == answered.split()
    assert found.problems == problems
    assert found.unknown == unknown


# CSV

CSV = build_packing("csv", wire_schema(OUTPUT.fields))
TABLE = 'id,label,note\nabc,good,\ndef,bad,"a, ""b""\nc"\nghj,good,x\n'


def test_a_table_is_asked_for_and_given() -> None:
    packing = build_packing("csv", wire_schema(OUTPUT.fields), StaticText("Review: ", ""))
    items = [("abc", 'Review: "très" bon'), ("def", "Review: two\nlines, 日本")]
    text = said(packing.compose("[", items))
    assert text.endswith('id,text\nabc,"""très"" bon"\ndef,"two\nlines, 日本"\n')
    assert "\nid,label,note\n" in text and "Review: <text>" in text
    found = CSV.split(TABLE, CODES, cut=False)
    assert found.answers == {
        "abc": '{"label":"good","note":null}',
        "def": '{"label":"bad","note":"a, \\"b\\"\\nc"}',
        "ghj": '{"label":"good","note":"x"}',
    }


TICKETS = StaticText("Title: ", "\nBe kind.", ("title", "id"), ("\nTicket <id>: ",))


def test_plain_columns_of_the_prompt_are_columns_of_the_table() -> None:
    packing = build_packing("csv", wire_schema(OUTPUT.fields), TICKETS)
    texts = ["Title: a, b\nTicket <id>: 7\nBe kind.", "Title: \nTicket <id>: \nBe kind."]
    text = said(packing.compose("[", list(zip(CODES, texts, strict=False))))
    # neither the code nor a place in the question is mixed up with what is there already
    assert text.endswith(':\nrow_id,title,id\nabc,"a, b",7\ndef,,\n')
    assert "\nrow_id,label,note\n" in text
    assert (
        "where <<title>> and <<id>> stand for its `title`, `id`:\n"
        "Title: <<title>>\nTicket <id>: <<id>>\nBe kind.\n"
    ) in text
    assert text.count("Be kind") == text.count("Ticket") == 1
    assert packing.empty == texts[1]


@pytest.mark.parametrize(
    "strange",
    [
        "Title: x\nTicket <id>: 7\nTicket <id>: 8\nBe kind.",  # where does the title end?
        "Title: x\nBe kind.",
        "Something else",
    ],
)
def test_rows_whose_columns_cannot_be_told_apart_are_sent_whole(strange: str) -> None:
    packing = build_packing("csv", wire_schema(OUTPUT.fields), TICKETS)
    whole = build_packing("csv", wire_schema(OUTPUT.fields), StaticText("Title: ", "\nBe kind."))
    items = [("abc", "Title: a\nTicket <id>: 7\nBe kind."), ("def", strange)]
    text = packing.compose("[", items).replace("row_id", "id")
    assert text == whole.compose("[", items)


def test_cells_become_values_of_the_type_of_their_field() -> None:
    kinds = {"text": "string", "whole": "integer", "part": "number", "flag": "boolean"}
    fields = {name: {"type": kind, "required": kind == "string"} for name, kind in kinds.items()}
    output = Output.model_validate({"fields": fields})
    packing = build_packing("csv", wire_schema(output.fields))

    def read(line: str) -> Any:
        split = packing.split(f"{line}\n", ["abc"], cut=False)
        return AnswerReader(output).read(split.answers["abc"])

    assert read("abc,7,7,1e2,True") == {"text": "7", "whole": 7, "part": 100.0, "flag": True}
    assert read("abc,, ,,") == {"text": "", "whole": None, "part": None, "flag": None}
    for wrong in ("abc,7,7.5,1,true", "abc,7,7,1,yes", "abc,7,0x7,1,true", "abc,7,7,NaN,true"):
        assert isinstance(read(wrong), Rejection)


@pytest.mark.parametrize(
    ("text", "cut", "answered", "problems", "unknown"),
    [
        (TABLE, False, "abc def ghj", {}, 0),
        (TABLE.rstrip(), False, "abc def ghj", {}, 0),
        (TABLE.replace("\n", "\r\n"), False, "abc def ghj", {}, 0),
        (TABLE.removeprefix("id,label,note\n"), False, "abc def ghj", {}, 0),
        (f"```csv\n{TABLE}```", False, "abc def ghj", {}, 0),
        (f"Here, as you wish:\n\n{TABLE}\nAnything, else, or not?", False, "abc def ghj", {}, 1),
        (TABLE.rstrip(), True, "abc def", {"ghj": "cut_off"}, 0),
        (TABLE, True, "abc def ghj", {}, 0),
        (TABLE[:-14], True, "abc", {"def": "cut_off", "ghj": "cut_off"}, 0),
        (TABLE[:-13], False, "abc", {"def": "malformed", "ghj": "missing"}, 0),
        (TABLE.replace('c"', "c"), False, "abc ghj", {"def": "malformed"}, 0),
        (TABLE.replace("abc,good,", "abc,good"), False, "def ghj", {"abc": "malformed"}, 0),
        (TABLE + "abc,bad,\n", False, "def ghj", {"abc": "repeated"}, 0),
        (TABLE.replace("abc", "xyz"), False, "def ghj", {"abc": "unknown_code"}, 1),
        (TABLE.replace("ghj", "3"), False, "abc def", {"ghj": "unknown_code"}, 1),
        ("", False, "", dict.fromkeys(CODES, "missing"), 0),
    ],
)
def test_damage_in_a_table_costs_only_the_rows_that_it_touches(
    text: str, cut: bool, answered: str, problems: dict[str, str], unknown: int
) -> None:
    found = CSV.split(text, CODES, cut=cut)
    assert (sorted(found.answers), found.problems) == (answered.split(), problems)
    assert found.unknown == unknown


def test_columns_in_another_order_are_read_by_their_names() -> None:
    found = CSV.split("id,note,label\nabc,x,good\n", ["abc"], cut=False)
    assert found.answers == {"abc": '{"label":"good","note":"x"}'}


def test_a_table_of_plain_answers() -> None:
    found = build_packing("csv", None).split("id,answer\nabc,Hello\ndef,\n", CODES, cut=False)
    assert found.answers == {"abc": "Hello"} and found.problems["def"] == "malformed"


def test_csv_takes_single_values_only() -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array"}}}
    with pytest.raises(OndineError, match="and the field tags is no single value"):
        build_packing("csv", schema)


def test_half_a_character_costs_no_row_and_is_seen_as_ever() -> None:
    text = '{"answers":[{"id":"abc","label":"good","note":"a\\ud83db"},{"id":"def","label":"bad"}]}'
    found = PACKING.split(text, CODES[:2], cut=False)
    assert found.problems == {}
    reader, flags = AnswerReader(OUTPUT), list[str]()
    assert reader.read(found.answers["abc"], flags) == {"label": "good", "note": "a\ufffdb"}
    assert flags == ["characters_replaced"]
    plain = PLAIN.split('{"answers":[{"id":"abc","answer":"a\\ud83db"}]}', ["abc"], cut=False)
    assert plain.answers == {"abc": "a\ufffdb"}


def test_a_number_without_end_costs_its_own_row_only() -> None:
    text = (
        pack(item("abc", note=1))
        .replace("1", "1" * 5000)
        .replace("}]}", "}," + pack(item("def"))[12:])
    )
    found = PACKING.split(text, CODES[:2], cut=False)
    assert sorted(found.answers) == ["def"] and found.problems == {"abc": "malformed"}
