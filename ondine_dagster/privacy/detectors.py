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
from ondine_dagster.privacy.numbers import iban_length, is_card, is_ipv4, is_ipv6, is_phone, is_ssn

Kind = Literal["secret", "email", "iban", "card", "ssn", "ip", "phone"]
# in the order in which they are looked for: what one has found is not looked at by the next
KINDS: tuple[Kind, ...] = get_args(Kind)
# what stands for a text in which a pattern could not be looked for
NOT_SEARCHED = "not_searched"
_Spans = Iterable[tuple[int, int]]


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
        own = {name: OwnPattern(pattern) for name, pattern in (patterns or {}).items()}
        self._detectors: list[tuple[str, Callable[[str], _Spans]]] = [
            *((name, pattern.spans) for name, pattern in own.items()),
            *((kind, _DETECTORS[kind]) for kind in KINDS if kind in kinds),
        ]

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
        numbers = _SEVEN_DIGITS.search(text) is not None
        for kind, spans in self._detectors:
            if not numbers and kind in _NUMBERS:
                continue
            for start, end in spans(text):
                place = bisect(found, start, key=_start)
                is_free = place == 0 or found[place - 1].end <= start
                if is_free and (place == len(found) or end <= found[place].start):
                    found.insert(place, Found(start, end, kind))
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


_EMAIL = re.compile(
    r"(?<![\w.%+-])\w[\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![^\W_])"
)


def _emails(text: str) -> _Spans:
    if "@" not in text:
        return
    for one in _EMAIL.finditer(text):  # also `git@host:path` and `icon@2x.png`
        repository = one[0].startswith("git@") and text[one.end() : one.end() + 1] == ":"
        if not repository and not re.match(r"[^@]*@[1-4]x\.", one[0]):
            yield one.span()


_ASSIGNED = (
    r"(?i:(?:password|passwort|passwd|pwd|passphrase|secret|api[_ -]?key|access[_ -]?token"
    r"|auth[_ -]?token)[\"']?(?:\s{0,3}[:=]\s{0,3}|\s+is:?\s+))[\"']?"
)
_SECRET = re.compile(
    "|".join(
        (
            r"\bsk-(?:ant-|or-v1-|proj-)?[\w-]{20,200}",  # OpenAI, Anthropic, OpenRouter
            r"\b[srp]k_(?:live|test)_\w{16,200}",  # Stripe
            r"\bgh[opsur]_\w{36,255}|\bgithub_pat_\w{22,255}|\bglpat-[\w-]{20,200}",
            r"\bxox[abeprs]-[\w-]{10,200}",  # Slack
            r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
            r"\bAIza[\w-]{35}",  # Google
            r"\b(?:hf_|npm_|pypi-|gsk_|xai-|r8_|dop_v1_|pplx-)[\w-]{20,200}",
            r"\bSG\.[\w-]{16,64}\.[\w-]{16,64}",  # SendGrid
            r"\beyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{8,4000}",  # a JSON web token
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END).){0,8000}-----END[A-Z ]+-----",
            r"(?i:\bbearer) +(?P<bearer>[\w.~+/=-]{16,4000})",
            r"://[^\s/:@]{0,100}:(?P<login>[^\s/@]{1,200})@",
            rf"{_ASSIGNED}(?P<assigned>(?=[^\s\"']*[\d!@#$%^&*_+=-])[^\s\"',;]{{6,200}})",
        )
    ),
    re.DOTALL,
)


# in small letters; without one of them no secret is there, and looking for these is fast
_MARKS = (
    "sk- k_live_ k_test_ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- xox akia asia aiza hf_ npm_ "
    "pypi- gsk_ xai- r8_ dop_v1_ pplx- sg. eyj -----begin bearer :// pass pwd secret key token"
).split()


def _secrets(text: str) -> _Spans:
    lowered = text.lower()
    for mark in _MARKS:  # not `any` of a generator, which takes three times as long
        if mark in lowered:
            break
    else:
        return
    for one in _SECRET.finditer(text):
        group = one.lastgroup or 0
        start, end = one.span(group)
        if group == "assigned":  # the end of the sentence is no part of it
            end = start + len(one[group].rstrip(".)"))
        yield start, end


_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")


def _ibans(text: str) -> _Spans:
    at = 0
    while one := _IBAN.search(text, at):
        length = iban_length(one[0])
        at = one.start() + (length or 4)
        if length:
            yield one.start(), at


_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")


def _cards(text: str) -> _Spans:
    return (one.span() for one in _CARD.finditer(text) if is_card(one[0]))


_SSN = re.compile(r"(?<![\w.-])\d{3}([- ]?)\d{2}\1\d{4}(?![\w-]|\.\d)")


def _ssns(text: str) -> _Spans:
    return (one.span() for one in _SSN.finditer(text) if is_ssn(text, one[0], one.start()))


_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{2,39}(?:\.\d{1,3}){0,3}(?![\w:])")


def _ips(text: str) -> _Spans:
    if text.count(".") > 2:
        for one in _IPV4.finditer(text):
            if is_ipv4(text, one[0], *one.span()):
                yield one.span()
    if "::" in text or text.count(":") > 5:
        yield from (one.span() for one in _IPV6.finditer(text) if is_ipv6(one[0]))


_PHONE = re.compile(
    r"(?<![\w.+/$€£-])(?:\+ ?|\()?\d(?:[ ./()-]{0,3}\d){6,14}"
    r"(?![\w%€$£]|-\w|[.,:]\d| ?(?:USD|EUR|€))"
)


def _phones(text: str) -> _Spans:
    return (one.span() for one in _PHONE.finditer(text) if is_phone(text, one[0], one.start()))


_DETECTORS: Mapping[Kind, Callable[[str], _Spans]] = {
    "secret": _secrets,
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "ssn": _ssns,
    "ip": _ips,
    "phone": _phones,
}
