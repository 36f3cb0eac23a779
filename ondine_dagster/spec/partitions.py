"""How the rows are cut into partitions: exactly one of five kinds."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    WithJsonSchema,
)

from ondine_dagster.spec.base import LOCAL, TEMPLATED, FilledText, Part, Whole
from ondine_dagster.spec.file_names import FileNames
from ondine_dagster.spec.file_places import readable_files
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.time_zone import TimeZone

Kind = Literal["rows", "time", "files", "values", "none"]
Every = Literal["hour", "day", "week", "month"]
_KINDS: tuple[Kind, ...] = ("rows", "time", "files", "values")
# A date on which hour, day, week and month begin at different times, and none of them at 0.
_SAMPLE = datetime(2018, 11, 25, 13)
_WINDOW_STARTS = {
    "hour": _SAMPLE,
    "day": _SAMPLE.replace(hour=0),
    "week": _SAMPLE.replace(hour=0),  # a Sunday
    "month": _SAMPLE.replace(day=1, hour=0),
}
# Dagster's hours begin at half past there, for a part of the year.
_HALF_HOURS = ("Australia/Lord_Howe", "Australia/LHI")
_EXAMPLE_NAMES = {
    "hour": "in/orders-%Y-%m-%dT%H.csv",
    "day": "in/orders-%Y-%m-%d.csv",
    "week": "in/orders-%Y-%m-%d.csv",
    "month": "in/orders-%Y-%m.csv",
}


def _readable_files(pattern: str) -> str:
    readable_files(pattern)
    if ".." in pattern.split("/"):
        raise ValueError(f"is {shown(pattern)}; it must not leave its folder with ..")
    return pattern


def _moment(value: Any) -> datetime:
    """Return a date or a local time as a naive time; text as it stands in YAML is welcome."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        moment = datetime(value.year, value.month, value.day)
    if not isinstance(moment, datetime):
        raise ValueError(
            f"is {shown(value)}; it must be a date or a time, as in 2026-01-01 or 2026-01-01T06:00"
        )
    if moment.tzinfo is not None:
        raise ValueError(
            f"is {shown(value)}; it must be a time without an offset: it is one of `timezone`"
        )
    return moment


Pattern = Annotated[FilledText, AfterValidator(_readable_files)]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]


class TimePartitions(Part):
    """One partition per window of time, by a column or by the names of files."""

    place: ClassVar[Location] = ("partitions", "time")

    column: Annotated[FilledText | None, LOCAL] = Field(
        default=None,
        description="The column with the time of a row: a date, a timestamp, or ISO text. A time "
        "without an offset is one of `timezone`.",
        examples=["ordered_at"],
    )
    filename: Annotated[Pattern | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `column` and `source.path`: the files with the rows, whose names "
        "tell their time (`%Y`, `%m`, `%d`, `%H`, ...; `*` stands for the rest).",
        examples=["in/orders-%Y-%m-%d.csv"],
    )
    every: Annotated[Every, LOCAL] = Field(
        description="The length of a window. Weeks begin on Sunday, as Dagster's do.",
        examples=["day"],
    )
    timezone: Annotated[TimeZone, LOCAL] = Field(
        default="UTC",
        description="The time zone in which windows begin.",
        examples=["Europe/Berlin"],
    )
    start: Annotated[Moment, LOCAL] = Field(
        description="When the first window begins. Earlier rows fit no partition.",
        examples=["2026-01-01"],
    )

    def refuse_contradictions(self) -> None:
        """Refuse windows that nothing tells, and file names that do not tell the window."""
        named = [name for name in ("column", "filename") if getattr(self, name) is not None]
        if len(named) != 1:
            both = " and ".join(named) or "neither column nor filename"
            raise refused_at((), f"has {both}; it must have exactly one of them", None)
        if self.every == "hour" and self.timezone in _HALF_HOURS:
            text = "changes its clocks by half an hour: its hours cannot be told apart; use days"
            raise refused_at(("every",), f"is hour, and {self.timezone} {text}", self.every)
        if self.filename is not None:
            self._refuse_vague_names(self.filename)

    def _refuse_vague_names(self, pattern: str) -> None:
        try:
            names = FileNames(pattern)
            start = _WINDOW_STARTS[self.every]
            text = f"must tell the whole {self.every}, as in {_EXAMPLE_NAMES[self.every]}"
            if names.moment(names.name_at(start)) == start:
                return
        except ValueError as error:
            text = str(error)
        raise refused_at(("filename",), f"is {shown(pattern)}; it {text}", pattern)


def _different_values(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if values is None:
        return None
    if not values:
        raise ValueError("is empty; it must list at least one value, or be left out")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"lists {shown(twice)} twice; it must list each value once")
    return values


class ValuePartitions(Part):
    """One partition per value of a column."""

    place: ClassVar[Location] = ("partitions", "values")

    column: Annotated[FilledText, LOCAL] = Field(
        description="The column whose values are the partitions.", examples=["country"]
    )
    listed: Annotated[tuple[FilledText, ...] | None, AfterValidator(_different_values), LOCAL] = (
        Field(
            default=None,
            description="The values that there may be; rows with another one fit no partition. "
            "Without it, the values are those that the rows have.",
            examples=[["de", "fr"]],
        )
    )


class Partitions(Part):
    """How the rows are cut into partitions: the unit of progress, of failure and of backfills.

    Exactly one of the keys below, or the word `none` in place of them: no partitions at all.
    """

    place: ClassVar[Location] = ("partitions",)

    rows: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=1,
        description="Rows in one partition. Rows never move: new rows make new partitions. "
        "5000, where nothing is declared.",
        examples=[5000],
    )
    time: TimePartitions | None = Field(
        default=None, description="One partition per hour, day, week or month."
    )
    files: Annotated[Pattern | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="One partition per file, instead of `source.path`: the files with the rows. "
        "`*` stands for any part of a name, `**` for any folders.",
        examples=["in/*.csv"],
    )
    values: ValuePartitions | None = Field(
        default=None, description="One partition per value of a column."
    )

    @property
    def kind(self) -> Kind:
        """What decides the partition of a row."""
        return self._kinds()[0]

    @property
    def file_pattern(self) -> str | None:
        """The files that stand in the place of `source.path`; None where that is declared."""
        return self.files or (self.time.filename if self.time else None)

    @property
    def column(self) -> str | None:
        """The column that decides; None where none does."""
        by = self.time or self.values
        return by.column if by else None

    def refuse_contradictions(self) -> None:
        """Refuse two kinds at once, and no kind."""
        kinds = self._kinds()
        if len(kinds) != 1:
            named = " and ".join(kinds) or "no kind"
            text = f"has {named}; it must have exactly one of {', '.join(_KINDS)}"
            raise refused_at((), f"{text}, or be the word none", None)

    def _kinds(self) -> list[Kind]:
        return [kind for kind in _KINDS if getattr(self, kind) is not None]


class NoPartitions(RootModel[Literal["none"]]):
    """No partitions: every asset is materialized as a whole."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kind: ClassVar[Kind] = "none"
    file_pattern: ClassVar[None] = None
    column: ClassVar[None] = None
    rows: ClassVar[None] = None
    time: ClassVar[None] = None
    values: ClassVar[None] = None


def _by_shape(value: Any) -> Any:
    """Choose by the shape, so that an error speaks of what was meant."""
    if value == "none":
        return NoPartitions("none")
    if isinstance(value, str):
        raise ValueError(
            f"is {shown(value)}; it must be a mapping with one of {', '.join(_KINDS)}, or none"
        )
    return value if isinstance(value, NoPartitions) else Partitions.model_validate(value)


DeclaredPartitions = Annotated[Partitions | NoPartitions, BeforeValidator(_by_shape), LOCAL]
