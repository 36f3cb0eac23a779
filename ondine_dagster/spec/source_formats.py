"""Which files a source can be: their endings, packed ones too, and how a CSV file is written."""

from __future__ import annotations

import codecs
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ondine_dagster.spec.base import LOCAL, VERBATIM, FilledText, Part, Text, Whole
from ondine_dagster.spec.problems import Location, refused_at, shown

Format = Literal["csv", "parquet", "json", "json lines", "excel"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".xlsx": "excel",
}
_PACKED = (".gz", ".bz2", ".zst", ".zip")
ENDINGS = f"{', '.join(_FORMATS)}; text files also with {', '.join(_PACKED)} behind it"


def file_format(name: str) -> Format | None:
    """Return the format that a file name tells by its ending, None where it is no known one."""
    endings = [ending.lower() for ending in PurePosixPath(name).suffixes]
    packed = bool(endings) and endings[-1] in _PACKED
    if packed:
        endings.pop()
    found = _FORMATS.get(endings[-1]) if endings else None
    return None if packed and found in ("parquet", "excel") else found


def default_delimiter(name: str) -> str:
    """Return what separates the cells of a CSV file with this name, unless declared."""
    return "\t" if ".tsv" in PurePosixPath(name.lower()).suffixes else ","


def _one_character(value: str | None) -> str | None:
    if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n\0"):
        raise ValueError(f"is {shown(value)}; it must be one character (ASCII, no line break)")
    return value


def _one_or_none(value: str) -> str:
    return value and str(_one_character(value))


def _encoding(value: str) -> str:
    try:
        found = codecs.lookup(value)
        text = "".encode(found.name)
    except (LookupError, ValueError):
        text = None
    if not isinstance(text, bytes):
        raise ValueError(
            f"is {shown(value)}; it must be an encoding such as utf-8, cp1252, latin-1 or utf-16"
        )
    return value


class CsvDialect(Part):
    """How a CSV file is written, where it is not as RFC 4180 has it: commas, `"`, UTF-8."""

    place: ClassVar[Location] = ("source", "csv")

    delimiter: Annotated[Text | None, AfterValidator(_one_character), LOCAL, VERBATIM] = Field(
        default=None,
        description="What separates the cells. Default: a comma; a tab in files that end in .tsv.",
        examples=[";"],
    )
    quote: Annotated[Text, AfterValidator(_one_or_none), LOCAL, VERBATIM] = Field(
        default='"',
        description="What stands round cells that hold a delimiter or a line break. Doubled inside "
        "such a cell it stands for itself. Empty: no cell is quoted.",
        examples=["'"],
    )
    escape: Annotated[Text | None, AfterValidator(_one_character), LOCAL, VERBATIM] = Field(
        default=None,
        description="A character that takes the meaning from the one after it: a backslash where "
        'quotes inside a cell are written \\".',
        examples=["\\"],
    )
    encoding: Annotated[FilledText, AfterValidator(_encoding), LOCAL] = Field(
        default="utf-8",
        description="How characters are bytes. A file that begins with the mark of UTF-8 or UTF-16 "
        "is read as that, without the mark.",
        examples=["cp1252"],
    )
    skip_lines: Annotated[Whole, LOCAL] = Field(
        default=0,
        ge=0,
        le=10_000,
        description="How many lines stand above the header line.",
        examples=[2],
    )

    def refuse_contradictions(self) -> None:
        """Refuse one character with two meanings."""
        named = [("delimiter", self.delimiter), ("quote", self.quote or None)]
        for name, value in (*named, ("escape", self.escape)):
            others = [other for other, one in named if one == value and other != name]
            if value is not None and others:
                text = f"is {shown(value)}, as is {others[0]}; each needs a character of its own"
                raise refused_at((name,), text, value)
