"""Finding the terms of many word lists in a text in one pass. Pure.

Owns the notation of the terms (see `lexicon`) and the index that makes a look-up cost per word of
the text, not per term of the lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_SEPARATORS = re.compile(
    r"[\s!-)+-/:-@\[-`{-~\xa0-\xbf\u2010-\u201e\u2026\u3001\u3002\u300c-\u300f"
    r"\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\u060c\u061b\u061f\u0964\u30fb]+"
)
_NO_SPACES = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
_PREFIX_KEY = 3

Hits = Mapping[str, list[str]]


def normalised(text: str) -> str:
    """Return the words of `text` in lower case, one space between and around them."""
    return f" {_SEPARATORS.sub(' ', text.casefold()).strip()} "


class WordLists:
    """Named lists of terms; which of them occur in a text."""

    def __init__(self, lists: Mapping[str, str]) -> None:
        self._names = tuple(lists)
        self._words: dict[str, list[tuple[str, str]]] = {}
        self._prefixes: dict[str, list[tuple[str, str]]] = {}
        self._phrases: dict[str, list[tuple[str, str]]] = {}
        self._anywhere: list[tuple[str, str]] = []
        for name, terms in lists.items():
            for term in dict.fromkeys(" ".join(terms.split()).split(",")):
                self._add(name, term.strip())

    def hits(self, text: str) -> Hits:
        """Return for each list the strings of it that occur in the normalised `text`."""
        found: dict[str, dict[str, None]] = {name: {} for name in self._names}
        for name, needle in self._candidates(text):
            if needle in text:
                found[name][needle] = None
        return {name: list(needles) for name, needles in found.items()}

    def _candidates(self, text: str) -> Iterator[tuple[str, str]]:
        for word in dict.fromkeys(text.split()):
            yield from self._words.get(word, ())
            yield from self._phrases.get(word, ())
            yield from self._prefixes.get(word[:_PREFIX_KEY], ())
        if not text.isascii():
            yield from self._anywhere

    def _add(self, name: str, term: str) -> None:
        if not term:
            return
        words = normalised(term.removesuffix("*"))
        if _NO_SPACES.search(words) or not any(map(str.isalnum, words)):
            self._anywhere.append((name, words.strip()))
        elif term.endswith("*"):
            key = words.split()[0][:_PREFIX_KEY]
            self._prefixes.setdefault(key, []).append((name, words.rstrip()))
        else:
            first = words.split()[0]
            index = self._phrases if " " in words.strip() else self._words
            index.setdefault(first, []).append((name, words))
