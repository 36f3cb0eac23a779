"""Takes what is found out of a text for good: `[EMAIL]` stands where an address stood. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache

from ondine_dagster.privacy.detectors import KINDS, Finder

Scrub = Callable[[str], str]


def scrubber(kinds: Collection[str] = KINDS, patterns: Mapping[str, str] | None = None) -> Scrub:
    """Return what puts the kind of each value in its place; see `Finder` for both arguments."""
    finder = Finder(kinds, patterns, hide_slow=True)
    return lambda text: finder.replace(text, lambda kind, _: mark(kind))


def mark(kind: str) -> str:
    """Return what stands in the place of a value of this kind: `[EMAIL]`."""
    return f"[{kind.upper()}]"


_WORD, _VALUE = 40, 200  # characters that a word, and a value with its surroundings, may have
_CUT_WORD = re.compile(rf"(?<=\s)\S{{1,{_WORD}}}\Z")
_IN_VALUES = re.compile(r"[\d@]")  # there are hardly any without


def beginning(text: str, longest: int, end: str = "...") -> str:
    """Return a text in at most so many characters, with no word and no value cut in two.

    Half a value has no form any more: nothing would find it where the text is shown, which is
    later, and where the patterns of its dataset are known.
    """
    if len(text) <= longest:
        return text
    at = longest - len(end)
    if word := not text[at].isspace() and _CUT_WORD.search(text, max(0, at - _WORD - 1), at):
        at = word.start()
    if _IN_VALUES.search(text, max(0, at - _VALUE), at + _VALUE):
        found = _finder().find(text[: at + _VALUE])
        at = next((one.start for one in found if one.start < at < one.end), at)
    return text[:at].rstrip() + end


@cache
def _finder() -> Finder:
    return Finder()
