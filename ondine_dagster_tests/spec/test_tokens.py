"""The token count without a tokenizer: what is cut fits, stays whole, and is always the same."""

from __future__ import annotations

from unicodedata import combining

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.spec.tokens import estimated_tokens, truncated


@given(st.text(), st.integers(1, 50), st.sampled_from(["…", "", " [cut]", "語"]))
def test_a_cut_text_fits_and_is_a_beginning(text: str, tokens: int, marker: str) -> None:
    cut = truncated(text, tokens, marker)
    if estimated_tokens(text) <= tokens:
        assert cut == text
        return
    assert cut.endswith(marker)
    kept = cut.removesuffix(marker)
    assert text.startswith(kept)
    assert estimated_tokens(cut) <= max(tokens, estimated_tokens(marker))
    assert truncated(text, tokens, marker) == cut


@pytest.mark.parametrize(
    ("text", "tokens", "cut"),
    [
        ("one two three", 2, "one…"),
        ("one two three", 3, "one two…"),
        ("one two", 2, "one two"),
        ("a" * 100, 2, "aaaaa…"),
        ("語" * 10, 4, "語語語語…"),
        ("x" * 4 + "e\u0301" * 9, 3, "xxxxe\u0301…"),
        ("👩\u200d👩\u200d👧 and more text", 4, "…"),
    ],
)
def test_words_and_characters_stay_whole(text: str, tokens: int, cut: str) -> None:
    assert truncated(text, tokens) == cut
    after = text[len(cut) - 1 :]
    assert not after or not combining(after[0])


def test_four_bytes_are_a_token() -> None:
    assert [estimated_tokens(text) for text in ("", "a", "abcd", "abcde", "語語")] == [
        0,
        1,
        1,
        2,
        2,
    ]
