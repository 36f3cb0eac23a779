"""Texts that are shortened before they are scrubbed, and those that come with escapes."""

from __future__ import annotations

import pytest

from ondine_dagster.llm.rejection import printable, shown
from ondine_dagster.privacy.scrubbing import beginning, scrubber

VALUES = {
    "canary.jane@example.org": "[EMAIL]",
    "4012 8888 8888 1881": "[CARD]",
    "GB29 NWBK 6016 1331 9268 19": "[IBAN]",
    "+49 171 5550142": "[PHONE]",
    "sk-canary-1234567890abcdefghijkl": "[SECRET]",
}
PIECES = ("canary", "jane", "example", "4012", "8888", "1881", "NWBK", "1331", "171", "555", "1234")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("shorten", [lambda text: beginning(text, 80), shown, printable])
def test_no_part_of_a_value_is_left_by_whoever_shortens_a_text(value, shorten) -> None:  # type: ignore[no-untyped-def]
    """Half a card is no card any more, and nothing would find it where the text is shown."""
    scrub = scrubber()
    for length in (*range(40, 100), *range(470, 510)):
        words = ("so " * 200)[:length]
        for text in (f"{words} {value} and so on", f"{words}\n{value}\t{value}", words + value):
            said = scrub(shorten(text))
            if not text.startswith(f"{words}{value[0]}"):
                assert not [one for one in PIECES if one in said], (length, said)


@pytest.mark.parametrize("value", VALUES)
def test_values_behind_line_breaks_and_within_lists_are_found_in_what_is_said_of_them(
    value: str,
) -> None:
    scrub = scrubber()
    nested = {"a": [f"so\n{value}", f"\t{value}\u200b"], "b": {"c": f"{'so ' * 20}{value}"}}
    for one in (f"a\n{value}", f"a\t{value}\x00", f"\u00a0{value}", nested, [nested], value):
        said = scrub(shown(one))
        assert not [part for part in PIECES if part in said], said
    assert VALUES[value] in scrub(shown([f"so\n{value}"]))


def test_a_short_text_is_not_shortened_and_a_long_one_ends_between_words() -> None:
    assert beginning("one two", 7) == "one two"
    assert beginning("one two three", 10) == "one two..."
    assert beginning("one two three", 11, "…") == "one two…"
    assert beginning("x" * 100, 10) == "xxxxxxx..."
    assert beginning("", 0) == ""
