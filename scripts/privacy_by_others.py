"""How the detectors do with what others made: faker's values, and phonenumbers' examples.

`tables` makes the second part of the figures in docs/privacy.md, always the same for the versions
in constraints.txt. Who wrote the detectors did not choose these values, nor what looks like them.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import phonenumbers
from faker import Faker
from faker.config import AVAILABLE_LOCALES
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from ondine_dagster.privacy.detectors import Finder

_SEED = 7
_PER_LOCALE = 5
_ALIKE = 500
_ALONE, _CALLED = "Please note {} now.", "My phone number is {} now."
_FINDER = Finder()


def tables() -> str:
    """Return both tables as Markdown: values that should be found, and what looks like them."""
    logging.getLogger("faker").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # locales that faker will rename
        return f"{_values_table()}\n{_alike_table()}"


def _values_table() -> str:
    lines = ["| values | made by | values | found | recall |", "|---|---|---|---|---|"]
    for name, maker, kind, values, frame in _values():
        made = list(values)
        found = sum(_is_found(frame.format(one), one, kind) for one in made)
        lines.append(f"| {name} | {maker} | {len(made)} | {found} | {found / len(made):.2f} |")
    return "\n".join([*lines, ""])


def _is_found(text: str, value: str, kind: str) -> bool:
    start = text.index(value)
    wanted = (start, start + len(value), kind)
    return wanted in {(one.start, one.end, one.kind) for one in _FINDER.find(text)}


def _values() -> Iterator[tuple[str, str, str, Iterable[str], str]]:
    yield "e-mail addresses", "faker", "email", _of_locales("email"), _ALONE
    yield "e-mail addresses of companies", "faker", "email", _of_locales("company_email"), _ALONE
    yield "IBANs", "faker", "iban", _of_locales("iban"), _ALONE
    yield "card numbers", "faker", "card", _of_locales("credit_card_number"), _ALONE
    yield "American social security numbers", "faker", "ssn", _several("ssn"), _ALONE
    yield "addresses of IP version 4", "faker", "ip", _several("ipv4"), _ALONE
    yield "addresses of IP version 6", "faker", "ip", _several("ipv6"), _ALONE
    yield "phone numbers after a word", "faker", "phone", _of_locales("phone_number"), _CALLED
    yield "phone numbers alone", "faker", "phone", _of_locales("phone_number"), _ALONE
    for name, form in (
        ("international", PhoneNumberFormat.INTERNATIONAL),
        ("national", PhoneNumberFormat.NATIONAL),
    ):
        for how, frame in (("after a word", _CALLED), ("alone", _ALONE)):
            title = f"{name} phone numbers {how}"
            yield title, "phonenumbers", "phone", _of_regions(form), frame


def _of_locales(method: str) -> Iterator[str]:
    for locale in sorted(AVAILABLE_LOCALES):
        fake = Faker(locale)
        fake.seed_instance(_SEED)
        for _ in range(_PER_LOCALE):
            try:
                yield str(getattr(fake, method)())
            except AttributeError:  # faker's own: some locales lack what the method is made of
                break


def _several(method: str) -> Iterator[str]:
    fake = Faker("en_US")
    fake.seed_instance(_SEED)
    return (str(getattr(fake, method)()) for _ in range(_ALIKE))


def _of_regions(form: int) -> Iterator[str]:
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE):
            if number := phonenumbers.example_number_for_type(region, kind):
                yield phonenumbers.format_number(number, form)


def _alike_table() -> str:
    lines = ["| what only looks like it | values | wrongly found |", "|---|---|---|"]
    for name, values in _alike():
        made = list(values)
        found = Counter(one.kind for text in made for one in _FINDER.find(text))
        shown = ", ".join(f"{count} `{kind}`" for kind, count in sorted(found.items()))
        lines.append(f"| {name} | {len(made)} | {shown or '0'} |")
    return "\n".join([*lines, ""])


def _alike() -> Iterator[tuple[str, Iterator[str]]]:
    fake = Faker("en_US")
    fake.seed_instance(_SEED)

    def each(*makers: Callable[[], object]) -> Iterator[str]:
        return (str(make()) for _ in range(_ALIKE) for make in makers)

    def dates(*forms: str) -> Iterator[str]:
        return (fake.date(form) for _ in range(_ALIKE) for form in forms)

    def like(*forms: str) -> Iterator[str]:
        return (fake.bothify(form).upper() for _ in range(_ALIKE) for form in forms)

    yield "dates", dates("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %m %Y", "%Y%m%d")
    yield "times and timestamps", each(fake.iso8601, fake.unix_time, fake.date_time, fake.time)
    yield "UUIDs and hashes", each(fake.uuid4, fake.md5, fake.sha1, fake.sha256)
    yield "MAC addresses", each(fake.mac_address)
    yield "ISBN and EAN", each(fake.isbn10, fake.isbn13, fake.ean8, fake.ean13)
    yield "names of browsers, with versions", each(fake.user_agent)
    yield "versions", like("%.#.#", "v%.%#.%##", "%.%.%.%", "%.%#.%###.%#", "%.#.#-rc%")
    yield "prices", each(fake.pricetag, lambda: fake.numerify("%.###.###,## EUR"))
    yield "coordinates", each(lambda: f"{fake.latitude()}, {fake.longitude()}")
    yield "VINs, number plates, bank codes", each(fake.vin, fake.license_plate, fake.aba)
    yield "URLs, paths, colours", each(fake.uri, fake.file_path, fake.image_url, fake.hex_color)
    yield "CAS numbers of substances", like("%##-##-#", "%####-##-#", "%######-##-#")
    yield (
        "order numbers with letters",
        like("ORD-20##-######", "??-####-#####"),
    )
    yield "order numbers of 8, 10, 12 digits alone", like("#" * 8, "#" * 10, "#" * 12)
    yield "numbers of 16 digits alone", like("#" * 16)
    yield "numbers of parcels in groups", like("#### #### ####", "9400 1000 0000 #### #### ##")
    yield "postal addresses of 110 locales", _of_locales("address")
    yield "texts of 110 locales", _of_locales("text")
