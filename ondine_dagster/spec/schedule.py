"""When a dataset is run by itself: five cron fields and a time zone.

Owns what is accepted as cron: a part of what Dagster accepts (a test compares the two), without
times that never come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ondine_dagster.spec.base import LOCAL, FilledText, Part
from ondine_dagster.spec.problems import Location, shown
from ondine_dagster.spec.time_zone import TimeZone

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS = "sun mon tue wed thu fri sat".split()
# name, lowest, highest, words for the values
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)
_SHORTHANDS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?P<first>\*|\w+)(-(?P<last>\w+))?(/(?P<step>[1-9]\d{0,2}))?", re.ASCII)


def _cron(text: str) -> str:
    if text in _SHORTHANDS:
        return text
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"is {shown(text)}; it must have five fields (minute, hour, day of the month, month, "
            f'day of the week) as in "0 6 * * *", or be one of {", ".join(_SHORTHANDS)}'
        )
    _, _, days, months, _ = (
        _values(text, field, *kind) for field, kind in zip(fields, _FIELDS, strict=True)
    )
    if min(days) > max(_DAYS_OF_MONTHS[month - 1] for month in months):
        raise ValueError(f"is {shown(text)}, a day that never comes; it must be one that does")
    return " ".join(text.split())


def _values(
    text: str, field: str, name: str, lowest: int, highest: int, words: Mapping[str, int]
) -> list[int]:
    """Return the values that a field stands for."""
    if field == "l" and name == "day of the month":
        return [lowest]  # the last day, which every month has
    found = [_range(item, lowest, highest, words) for item in field.split(",")]
    if not all(found):
        raise ValueError(
            f"is {shown(text)}, whose {name} is {shown(field)}; it must be *, {lowest} to "
            f"{highest}, a range such as {lowest}-{highest}, a step such as */2, or a list"
        )
    return [value for values in found for value in values]


def _range(item: str, lowest: int, highest: int, words: Mapping[str, int]) -> range:
    """Return the values of one item of a list; none where it is no value, range or step."""
    match = _ITEM.fullmatch(item)
    if match is None:
        return range(0)
    first, last, step = match["first"], match["last"], int(match["step"] or 1)
    if first == "*":
        return range(0) if last or step > highest else range(lowest, highest + 1, step)
    if last is None and match["step"]:
        return range(0)
    start, end = (_number(value, words) for value in (first, last or first))
    return range(start, end + 1, step) if lowest <= start and end <= highest else range(0)


def _number(value: str, words: Mapping[str, int]) -> int:
    return words[value] if value in words else int(value) if value.isdecimal() else -1


class Schedule(Part):
    """When the dataset is run automatically: the short form is the text of `cron`.

    A tick takes a snapshot, then runs what is missing or changed. The schedule is off until a
    person switches it on, as it spends money.
    """

    place: ClassVar[Location] = ("schedule",)

    cron: Annotated[FilledText, AfterValidator(_cron), LOCAL] = Field(
        description="The times: minute, hour, day of the month, month, day of the week.",
        examples=["0 6 * * *"],
    )
    timezone: Annotated[TimeZone, LOCAL] = Field(
        default="UTC",
        description="The time zone that these times are in.",
        examples=["Europe/Berlin"],
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}


def _from_text(value: Any) -> Any:
    return {"cron": value} if isinstance(value, str) else value


ScheduleField = Annotated[Schedule | None, BeforeValidator(_from_text), LOCAL]
