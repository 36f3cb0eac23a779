"""What is looked for in texts, and how it is found. Pure, and linear in the text's length.

One detector for each kind of `KINDS`; `Finder` runs them, and the user's own patterns first.
Names and street addresses have no form that could be looked for: nothing here finds them.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, get_args

from ondine_dagster.patterns import OwnPattern, PatternTooSlow
from ondine_dagster.privacy.numbers import iban_length, is_card, is_ipv4, is_ipv6, is_ssn
from ondine_dagster.privacy.phones import phones
from ondine_dagster.privacy.secrets import secrets
from ondine_dagster.privacy.surroundings import ENDS, STARTS

# raised whenever a detector finds something else: placeholders have other numbers then, and nobody
# may put one value in the place of another; older prompts count as those of another declaration
VERSION = 3
Kind = Literal["secret", "email", "iban", "card", "ssn", "ip", "phone"]
# in the order in which they are looked for: what one has found is not looked at by the next
KINDS: tuple[Kind, ...] = get_args(Kind)
# what stands for a text in which a pattern could not be looked for
NOT_SEARCHED = "not_searched"
_Spans = Iterable[tuple[int, int]]
_Detector = tuple[str, Callable[[str], _Spans]]


@dataclass(frozen=True, slots=True)
class Found:
    """A place in a text, and what stands there: a kind, or the name of a pattern of the user's."""

    start: int
    end: int
    kind: str


_start = attrgetter("start")
# all of these have seven digits close to one another; most texts have no such place, and to look
# for it once takes a tenth of the time
_NUMBERS = frozenset({"iban", "card", "ssn", "phone"})
_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")
# what word processors, web pages and wide keyboards put in the place of plain characters
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\uff0d", "-"),
        **dict(zip("\uff20\uff0b\uff08\uff09\uff1a\uff0e", "@+():.", strict=True)),
    }
)
_NOT_PLAIN = re.compile(f"[{''.join(map(chr, _PLAIN))}]")


class Finder:
    """Finds some kinds of personal data, and what patterns of the user's own match."""

    def __init__(
        self,
        kinds: Collection[str] = KINDS,
        patterns: Mapping[str, str] | None = None,
        *,
        hide_slow: bool = False,
    ) -> None:
        """`patterns` are regular expressions by name. Raises re.error for a broken one.

        `hide_slow`: a text on which one of them takes too long is found as a whole (NOT_SEARCHED);
        else `find` raises PatternTooSlow.
        """
        self._hide_slow = hide_slow
        own = {name: OwnPattern(pattern).spans for name, pattern in (patterns or {}).items()}
        ours = {kind: _DETECTORS[kind] for kind in KINDS if kind in kinds}
        self._own: list[_Detector] = [*own.items()]
        self._detectors: list[_Detector] = [*ours.items()]
        self._without_numbers = [one for one in self._detectors if one[0] not in _NUMBERS]

    def find(self, text: str) -> list[Found]:
        """Return what is found, in the order of the text; no two overlap."""
        try:
            return self._find(text)
        except PatternTooSlow:
            if not self._hide_slow:
                raise
            return [Found(0, len(text), NOT_SEARCHED)]

    def _find(self, text: str) -> list[Found]:
        found: list[Found] = []
        _add(found, text, self._own)
        detectors = self._detectors if _SEVEN_DIGITS.search(text) else self._without_numbers
        plain = text if text.isascii() or not _NOT_PLAIN.search(text) else text.translate(_PLAIN)
        _add(found, plain, detectors)
        return found

    def replace(self, text: str, put: Callable[[str, str], str]) -> str:
        """Return the text with `put(kind, value)` in the place of each value; itself if none."""
        found = self.find(text)
        if not found:
            return text
        parts, at = [], 0
        for one in found:
            parts += [text[at : one.start], put(one.kind, text[one.start : one.end])]
            at = one.end
        return "".join([*parts, text[at:]])


def _add(found: list[Found], text: str, detectors: Iterable[_Detector]) -> None:
    """Add what these find where nothing was found yet; `found` stays in the order of the text."""
    for kind, spans in detectors:
        for start, end in spans(text):
            place = bisect(found, start, key=_start)
            is_free = place == 0 or found[place - 1].end <= start
            if is_free and (place == len(found) or end <= found[place].start):
                found.insert(place, Found(start, end, kind))


_EMAIL = re.compile(
    r"(?<![^\W_])(?<![.%+-])\w[\w.%+'-]{0,63}(?:@|%40)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![^\W_])"
)


def _emails(text: str) -> _Spans:
    if "@" not in text and "%40" not in text:  # as it stands in URLs
        return
    for one in _EMAIL.finditer(text):  # not `git@host:path` and `icon@2x.png`
        repository = one[0].startswith("git@") and text[one.end() : one.end() + 1] == ":"
        if not repository and not re.match(r"[^@]*@[1-4]x\.", one[0]):
            yield one.span()


_IBAN = re.compile(rf"{STARTS}[A-Za-z]{{2}}\d{{2}}(?:[ -]?[A-Za-z0-9]){{11,30}}")


def _ibans(text: str) -> _Spans:
    at = 0
    while one := _IBAN.search(text, at):
        length = iban_length(one[0])
        at = one.start() + (length or 4)
        if length:
            yield one.start(), at


_CARD = re.compile(rf"{STARTS}(?<![.+-])\d(?:[ -]?\d){{11,18}}{ENDS}(?!-|\.\d)")


def _cards(text: str) -> _Spans:
    return (one.span() for one in _CARD.finditer(text) if is_card(one[0]))


_SSN = re.compile(rf"{STARTS}(?<![.-])\d{{3}}([- ]?)\d{{2}}\1\d{{4}}{ENDS}(?!-|\.\d)")


def _ssns(text: str) -> _Spans:
    return (one.span() for one in _SSN.finditer(text) if is_ssn(text, one[0], one.start()))


_IPV4 = re.compile(rf"{STARTS}(?<!\.)(?:\d{{1,3}}\.){{3}}\d{{1,3}}{ENDS}")
# every address of version 6 has one, or `::`; the colons of JSON and of prose are none
_IPV6_GROUP = re.compile(r":[0-9A-Fa-f]{1,4}:")
_IPV6 = re.compile(rf"{STARTS}(?<![:.])[0-9A-Fa-f:]{{2,39}}(?:\.\d{{1,3}}){{0,3}}{ENDS}(?!:)")


def _ips(text: str) -> _Spans:
    if text.count(".") > 2:
        for one in _IPV4.finditer(text):
            if is_ipv4(text, one[0], *one.span()):
                yield one.span()
    if "::" in text or _IPV6_GROUP.search(text):
        yield from (one.span() for one in _IPV6.finditer(text) if is_ipv6(one[0]))


_DETECTORS: Mapping[Kind, Callable[[str], _Spans]] = {
    "secret": secrets,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "ssn": _ssns,
    "ip": _ips,
    "phone": phones,
}
