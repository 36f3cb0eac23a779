"""Patterns of the user's own find what Python's would, and end in time whatever the text."""

from __future__ import annotations

import re
import time
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ondine_dagster import patterns
from ondine_dagster.patterns import OwnPattern, PatternTooSlow

# one way through each of these texts takes longer than anybody can wait
ENDLESS = [
    (r"(?P<all>(x+x+)+y)", "x" * 5000),
    (r"(a|aa)+$", "a" * 60 + "b"),
    (r"^(.*?,){25}P", ",".join(map(str, range(29)))),
    (r"(.*)*\d", "a" * 30_000),
]
ATOMS = [r"\w", r"\W", r"\s", r"\S", r"\d", r"\D", r"\b", r"\.", r"\{", *"aké².{}^$", "{e}"]
ATOMS += [r"[\w-]", r"[^\W_]", r"[\W\d]", r"[^\S\n]", "[[a]", "[]a]", "[^]a]", "[{]", "[a-c]"]
ATOMS += ["(?:a|b)", "(b)", "(?=a)", "(?!b)", "(?<=a)", "(?#[)", "[&&a]", r"[\b]", r"[^\s\S]"]
TIMES = ["", "", "", "*", "+", "?", "{2}", "{1,2}", "{,2}", "*?", "+?", "??"]
PIECE = st.tuples(st.sampled_from(ATOMS), st.sampled_from(TIMES)).map("".join)
TEXT = st.text("ab c{}e[]-_²½ékK\u0301\u094d1٣\n\x1c.\\|&~:", max_size=9)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["", "", "(?a)", "(?i)", "(?x)"]),
    st.lists(PIECE, min_size=1, max_size=4).map("".join),
    st.lists(TEXT, min_size=1, max_size=3),
)
def test_a_pattern_finds_what_pythons_own_finds(flag: str, pattern: str, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of sets that may mean something else one day
        try:
            python = re.compile(flag + pattern)
        except re.error:
            assume(False)
        own = OwnPattern(flag + pattern)
    for text in texts:
        for ours, theirs in ((own.search, python.search), (own.fullmatch, python.fullmatch)):
            found, wanted = ours(text), theirs(text)
            assert (found and (found.span(), found.groups())) == (
                wanted and (wanted.span(), wanted.groups())
            )
        spans = [one.span() for one in python.finditer(text) if one.end() > one.start()]
        assert own.spans(text) == spans


@pytest.mark.parametrize(("pattern", "text"), ENDLESS)
def test_a_search_that_would_not_end_is_stopped(
    pattern: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "MOST_SECONDS", 0.03)
    began = time.process_time()
    with pytest.raises(PatternTooSlow, match="repetition of a repetition") as caught:
        OwnPattern(pattern).search(text)
    assert time.process_time() - began < 10
    assert pattern in str(caught.value)


def test_what_is_no_pattern_of_pythons_is_refused_as_python_does() -> None:
    for wrong in ("(", r"\p{L}", "(?P<a>x)(?P<a>y)", "(?V1)a"):
        with pytest.raises(re.error):
            OwnPattern(wrong)
