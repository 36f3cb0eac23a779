"""Telephone numbers: by their form, or by the words before them. Pure, and linear in the length.

A number has no form of its own: an order number may look like a telephone number. Digits without
anything between them are one only where the words say so, or a plus sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondine_dagster.privacy.surroundings import ENDS, OTHER_NUMBER, STARTS, WORD, after, digits_of

_EXTENSION = r"(?: ?(?:x|ext\.?:?|extension) ?\d{1,6})"
# between digits, but not where the next number of a list begins
_BETWEEN = r"(?! ?/ ?[0+(]|(?<=\d\d\d\d) 0\d{2,4}[ /-]?\d{6})[ ./()-]{0,3}"
# more digits than a number may have, so that the end of a longer one is not taken for one
_NUMBER = re.compile(
    rf"{STARTS}(?<![.+/$€£-])(?P<number>(?:\(?\+ ?|\()?\d(?:{_BETWEEN}\d){{6,29}})"
    rf"(?P<extension>{_EXTENSION}?){ENDS}(?![%€$£]|-{WORD}|[.,:]\d| ?(?:USD|EUR|€|times))",
    re.IGNORECASE,
)
# what may stand between such a word and the number
_LINKS = (
    r"(?:[\s.:：=#(,\"']|\(\w{1,12}\)|\b(?:me|us|him|her|them|back|number|nummer|numero|numéro|número|no|nr|is|at|on"
    r"|under|via|my|our|the|new|ist|unter|auf|an|mich|uns|meine|lautet|est|au|le|es|al|è|il|é|o)\b)*"
)
_WORDS = re.compile(
    r"(?:\b(?:(?:tele)?phones?|tel(?:efon[eo]?|éfono|éphone|efoon|efonnummer)?|mobil[e]?|móvil"
    r"|celular|cellulare|portable|cell|handy(?:nummer)?|gsm|fax|whatsapp|sms|hotline"
    r"|call|dial|ring|text me|rang|called|phoned|anrufen|erreichbar|rufnummer|llame|appelez"
    r"|reach (?:me|us|him|her|them)|(?:my|our|his|her|their) number|at work)\b"
    r"|тел(?:ефон)?|τηλ(?:έφωνο)?|هاتف|جوال|फ़ोन|मोबाइल|ফোন|โทร|电话|電話|手机|手機|携帯|전화)"
    + _LINKS
    + r"$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\(?(?:[0-3]?\d([-/. ])[0-3]?\d\1(?:19|20)\d\d|(?:19|20)\d\d([-/. ])\d\d\2\d\d)\b"
)
_DECIMAL = re.compile(r"\+?\d+\.\d+")
_FORMS = re.compile(
    "|".join(
        (
            r"(?:1[-. ])?(?:\([2-9]\d\d\) ?\d{3}[-. ]|[2-9]\d\d([-.])\d{3}\1)\d{4}",  # America
            r"(?:1 )?[2-9]\d\d [2-9]\d\d \d{4}",
            r"0[1-9]\d{0,4}[ /-]{1,3}\d{2,8}(?:[ -]\d{2,6}){0,4}",  # most countries
            r"\(0[1-9]\d{0,4}\)[ .-]{0,2}\d{2,8}(?:[ .-]\d{2,6}){0,4}",
            r"0[1-9]\d{1,3}\.\d{3}\.\d{3,4}|0[1-9](?:\.\d\d){4}",
            # with the area in brackets, and a country or 8 for long distance before it
            r"(?:\d{1,3}[ -]?)?\([1-9]\d{1,3}\)[ .-]{0,2}\d{2,4}(?:[ .-]\d{2,4}){1,3}",
            r"(?:[1-9]\d|\([1-9]\d\)) ?9?\d{4}-\d{4}",  # Brazil
        )
    )
)
# parcels and cards have groups of four; the postcodes of Brazil five digits and three
_OTHER_FORMS = re.compile(r"\d{4}(?: \d{4}){2,3}|\d{5}-\d{3}|\([12]\d{3}\).*")
_LEAST = 9  # digits of a number with a trunk zero


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Yield where telephone numbers begin and end, with their extension."""
    for one in _NUMBER.finditer(text):
        if _is_phone(text, one["number"], bool(one["extension"]), one.start()):
            yield one.span()


def _is_phone(text: str, found: str, extended: bool, start: int) -> bool:
    digits = digits_of(found)
    if not 7 <= len(digits) <= 15 or after(OTHER_NUMBER, text, start) or _DATE.match(found):
        return False
    if after(_WORDS, text, start):
        return True
    if _DECIMAL.fullmatch(found) or _OTHER_FORMS.fullmatch(found):
        return False
    if found.startswith(("+", "(+")):
        return digits[0] != "0" and len(digits) >= 8
    if found.startswith("00"):
        least = 12 if found.isdecimal() else 10
        return digits[2] != "0" and len(digits) >= least and not is_article_number(found)
    plain = found if found.isascii() else "".join(digits_of(one) or one for one in found)
    return _FORMS.fullmatch(plain) is not None and (extended or len(digits) >= _LEAST)


def is_article_number(text: str) -> bool:
    """Return whether this has the checksum of the number on an article (GTIN-12, 13, 14; EAN)."""
    if len(text) not in (12, 13, 14) or not text.isdecimal():
        return False
    weighted = (int(one) * (3 - 2 * (place % 2)) for place, one in enumerate(reversed(text[:-1])))
    return (sum(weighted) + int(text[-1])) % 10 == 0
