"""Placeholders: the same for the same row, never one that is there already, and all come back."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ondine_dagster.privacy.detectors import Finder
from ondine_dagster.privacy.placeholders import (
    Redactor,
    literal_in,
    put_mark,
    replaced,
    restored,
    with_stand_ins,
)

ANA, BOB = "ana@example.com", "bob@example.org"
KEPT = Redactor(Finder(), reversible=True)
GONE = Redactor(Finder(), reversible=False)


def test_equal_values_have_one_placeholder_and_numbers_go_by_kind() -> None:
    row = {"a": f"{ANA} and {BOB}", "b": f"{ANA}, call +49 171 2345678", "c": None}
    redacted, found = KEPT.row(row, ["b", "a"])
    assert redacted == {"a": "[EMAIL_1] and [EMAIL_2]", "b": "[EMAIL_1], call [PHONE_1]", "c": None}
    assert found.values == {"[EMAIL_1]": ANA, "[EMAIL_2]": BOB, "[PHONE_1]": "+49 171 2345678"}


def test_neither_the_order_of_columns_nor_others_change_a_placeholder() -> None:
    """A column that moved, or that is new in the source, must not make a new question."""
    plain = KEPT.row({"a": ANA, "b": BOB}, ["a", "b"])[0]
    moved = KEPT.row({"z": "eve@example.net", "b": BOB, "a": ANA}, ["b", "a"])[0]
    assert {name: moved[name] for name in ("a", "b")} == plain
    assert moved["z"] == "eve@example.net", "a column that is not in the prompt is left alone"


def test_a_placeholder_that_is_there_already_is_not_given_out() -> None:
    redacted, found = KEPT.row({"a": f"[EMAIL_1], [email_2] and {ANA}"}, ["a"])
    assert redacted["a"] == "[EMAIL_1], [email_2] and [EMAIL_3]"
    answer = restored(redacted["a"], found.values, in_json=False)
    assert answer == f"[EMAIL_1], [email_2] and {ANA}"
    declared = Redactor(Finder(), reversible=True, taken=literal_in("Never write [EMAIL_1]."))
    assert declared.row({"a": ANA}, ["a"])[0]["a"] == "[EMAIL_2]"


def test_lists_objects_numbers_and_json_are_looked_through() -> None:
    cell = json.dumps([{"input": f"\n{ANA}", "card": 4111111111111111}])
    row = {"list": [ANA, {"mail": BOB}], "card": 4111111111111111, "n": 12, "yes": True, "js": cell}
    redacted, _ = GONE.row(row, row)
    assert redacted == {
        "list": ["[EMAIL]", {"mail": "[EMAIL]"}],
        "card": "[CARD]",
        "n": 12,
        "yes": True,
        "js": '[{"input": "\\n[EMAIL]", "card": "[CARD]"}]',
    }
    assert KEPT.row({"js": '{"a":  1}'}, ["js"])[0]["js"] == '{"a":  1}', "kept as it was written"


def test_what_the_declaration_says_itself_is_left_in_a_text() -> None:
    text = KEPT.text(f"Write to {ANA}, not to {BOB}.", {ANA})
    assert text == f"Write to {ANA}, not to [EMAIL]."


def test_values_come_back_into_json_as_json() -> None:
    redactor = Redactor(Finder((), {"odd": "<[^>]*>"}), reversible=True)
    _, found = redactor.row({"a": '<a "quoted"\nline>'}, ["a"])
    answer = restored('{"who": "[odd_1] and [ODD_2]"}', found.values, in_json=True)
    assert json.loads(answer) == {"who": '<a "quoted"\nline> and [ODD_2]'}


@pytest.mark.parametrize("kind", ["EMAIL", "PHONE", "CARD", "IBAN", "SSN", "IP"])
def test_a_stand_in_is_of_its_kind(kind: str) -> None:
    (found,) = Finder((kind.lower(),)).find(f"ssn {with_stand_ins(f'[{kind}_7]')}")
    assert found.kind == kind.lower()
    assert with_stand_ins("[OTHER_1] [EMAIL] [x]") == "[OTHER_1] [EMAIL] [x]"


_PIECES = st.sampled_from(
    [ANA, BOB, "+49 171 2345678", "[EMAIL_1]", "[PHONE_2]", "[", "]", "_1", " ", "x", "\n", '"']
)


@example([f"{ANA}_1{ANA}"])
@given(st.lists(st.lists(_PIECES, max_size=8).map("".join), min_size=1, max_size=3))
def test_whatever_is_taken_out_comes_back(cells: list[str]) -> None:
    row = {f"c{place}": cell for place, cell in enumerate(cells)}
    redacted, found = KEPT.row(row, row)
    for name, cell in row.items():
        assert ANA not in redacted[name]
        back = restored(redacted[name], found.values, in_json=False)
        assert back == cell


def test_names_in_json_are_looked_through_and_say_what_their_texts_are() -> None:
    """`password` says of a word what the word does not; and a name may be an address."""
    cell = {"ana@example.com": 2, "bob@example.com": {"password": "hunter22!"}, "phone": "5550142"}
    redacted, found = Redactor(Finder(), reversible=True).row({"c": json.dumps(cell)}, ["c"])
    assert json.loads(redacted["c"]) == {
        "[EMAIL_1]": 2,
        "[EMAIL_2]": {"password": "[SECRET_1]"},
        "phone": "[PHONE_1]",
    }
    assert found.values["[SECRET_1]"] == "hunter22!"
    removed = json.loads(replaced(json.dumps(cell), Finder(), put_mark))
    assert list(removed.values()) == [2, {"password": "[SECRET]"}, "[PHONE]"], "no name is lost"
    struct = replaced(cell, Finder(), put_mark, typed=True)
    assert list(struct) == list(cell), "a column of a file keeps the names of its type"


def test_json_in_which_a_name_stands_twice_hides_nothing() -> None:
    cell = '{"to": "ana@example.com", "to": 3}'
    assert replaced(cell, Finder(), put_mark) == '{"to": "[EMAIL]", "to": 3}'


@pytest.mark.parametrize("kind", [int, float, Decimal])
def test_a_number_that_is_a_value_is_one_in_every_type(kind: type) -> None:
    """With a gap in its column, pandas makes a whole number a fraction."""
    assert replaced(kind(4111111111111111), Finder(), put_mark) == "[CARD]"
    assert replaced(kind(4111111111111111), Finder(), put_mark, typed=True) is None
    assert replaced(kind(12), Finder(), put_mark) == kind(12)


def test_numbers_that_are_none_stay_as_they_are() -> None:
    for odd in (1.5, float("inf"), float("-inf"), 1e300, True, Decimal("Infinity")):
        assert replaced(odd, Finder(), put_mark) is odd
