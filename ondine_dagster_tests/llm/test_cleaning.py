"""Cleaning: only what is declared, in order, counted, and never the source's own row."""

from __future__ import annotations

from typing import Any

import pytest

from ondine_dagster.llm.cleaning import Cleaner
from ondine_dagster.spec import Prompt


def cleaner(**clean: Any) -> Cleaner:
    return Cleaner(Prompt.model_validate({"template": "{{ a }}", "clean": {"a": clean}}).clean)


@pytest.mark.parametrize(
    ("clean", "text", "cleaned"),
    [
        ({"unicode": "nfc"}, "e\u0301", "\u00e9"),
        ({"unicode": "nfc"}, "ﬁ ²", "ﬁ ²"),  # what only looks alike stays
        ({"control_characters": "remove"}, "a\x00b\x1b\x85c\td\ne\r", "abc\td\ne\r"),
        ({"control_characters": "space"}, "a\x00b", "a b"),
        ({"control_characters": "remove"}, "\u200fשלום\u202b", "\u200fשלום\u202b"),
        ({"white_space": "trim"}, " \u00a0a  b\n", "a  b"),
        ({"white_space": "collapse"}, " a \n\t b\u2003", "a b"),
        ({"truncate_tokens": 2}, "one two three", "one…"),
        ({"truncate_tokens": 3, "marker": " [cut]"}, "one two three", "one [cut]"),
        ({"white_space": "collapse", "truncate_tokens": 2}, "one   two", "one two"),
    ],
)
def test_a_text_is_cleaned_as_declared(clean: Any, text: str, cleaned: str) -> None:
    assert cleaner(**clean).clean({"a": text, "b": text}) == {"a": cleaned, "b": text}


def test_changed_rows_are_counted_by_column_and_kind() -> None:
    made = cleaner(unicode="nfc", white_space="trim", truncate_tokens=50)
    for text in ("tidy", " e\u0301", " a ", "x", None, 7):
        made.clean({"a": text})
    assert made.counts == {("a", "unicode"): 1, ("a", "white_space"): 2}


def test_a_row_is_never_changed_itself() -> None:
    row = {"a": " x ", "b": 1}
    assert cleaner(white_space="trim").clean(row) == {"a": "x", "b": 1}
    assert row == {"a": " x ", "b": 1}


@pytest.mark.parametrize("value", [None, 3, 2.5, True, [" x "], {"k": " x "}])
def test_what_is_no_text_stays_as_it_is(value: Any) -> None:
    made = cleaner(white_space="trim")
    assert made.clean({"a": value}) == {"a": value}
    assert not made.counts
