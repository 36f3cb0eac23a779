"""Which numbers are what they look like: checksums, lengths, and the words around them. Pure.

A number has no form of its own: an order number may look like a phone number, a version like an
address. Where the form leaves it open, the words before it decide.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from ondine_dagster.privacy.phones import is_article_number
from ondine_dagster.privacy.surroundings import OTHER_NUMBER, after, digits_of

# By country code, the length of an IBAN: https://www.swift.com/standards/data-standards/iban
IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}
_SSN_WORD = re.compile(
    r"(?:\bssn|social security(?: number| no\.?)?)[\s:#\"']*(?:is\s+)?$", re.IGNORECASE
)
_VERSION_WORD = re.compile(
    r"(?:\b(?:v|versions?|ver|released?|firmware|build|updated?(?: to)?|upgraded?(?: to)?"
    r"|driver|patch|section|chapter|clause|paragraph|kapitel|abschnitt|norm|rv)|§|[=<>~^]=?|[\w)][-_@/])[\s.:]*$",
    re.IGNORECASE,
)
_ADDRESS_WORD = re.compile(
    r"(?:\bips?\b|\bipv4|address|adresse|host|server|dns|gateway|router|ping|login|logged in"
    r"|resolver|proxy|subnet)[^.]*$",
    re.IGNORECASE,
)
# beginning and length of the cards that are in use
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}"
    r"|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])(?:\d{8}|\d{12}|\d{14,15})|(?:2131|1800)\d{11}"
)


def is_card(text: str) -> bool:
    """Return whether this is the number of a payment card: range, length, Luhn's checksum.

    Articles have 13 digits, and 4 begins those of Germany and Japan; cards hardly do any more.
    """
    digits = digits_of(text)
    if _CARD.fullmatch(digits) is None or len(set(digits)) < 2:
        return False
    if any(len(group) > 6 for group in re.split("[ -]", text)) and text != digits:
        return False  # nobody writes a card in such groups
    if len(digits) < 14 and is_article_number(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def iban_length(text: str) -> int:
    """Return how many characters at the start are an IBAN; 0 where they are none.

    The country's length ends it, whatever words follow; the checksum is that of ISO 7064 (97-10).
    """
    length = IBAN_LENGTHS.get(text[:2].upper())
    if length is None:
        return 0
    places = [place for place, one in enumerate(text) if one.isalnum()]
    if len(places) < length:
        return 0
    end = places[length - 1] + 1
    plain = "".join(filter(str.isalnum, text[:end]))
    if text[end : end + 1].isalnum():
        return 0
    number = "".join(str(int(one, 36)) for one in (plain[4:] + plain[:4]).upper())
    return end if int(number) % 97 == 1 else 0


def is_ssn(text: str, found: str, start: int) -> bool:
    """Return whether nine digits can be an American social security number that was given out.

    Without hyphens it takes the words before it.
    """
    digits = digits_of(found)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000":
        return False
    if after(_SSN_WORD, text, start):
        return True
    return found.count("-") == 2 and not after(OTHER_NUMBER, text, start)


def is_ipv4(text: str, found: str, start: int, end: int) -> bool:
    """Return whether four numbers are an address, and no version.

    Four small numbers are a version, unless the words before them speak of addresses.
    """
    try:
        address = IPv4Address(found)
    except AddressValueError:
        return False
    if after(_VERSION_WORD, text, start) or re.match(r"[-+_][A-Za-z]|\.\d", text[end : end + 2]):
        return False
    if address.is_loopback or address.is_unspecified or found.startswith("255."):  # nobody's
        return False
    small = all(int(one) < 20 for one in found.split("."))
    return not small or after(_ADDRESS_WORD, text, start)


def is_ipv6(found: str) -> bool:
    """Return whether this is an address of version 6 that somebody may have."""
    if found.count(":") < 2 or len(digits_of(found)) < 1 or len(found) < 6:
        return False
    try:
        address = IPv6Address(found)
    except AddressValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)
