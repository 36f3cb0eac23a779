"""What an answer looks like, how it is read, and what is done with one that cannot be read.

An answer is structured (`fields`, or a Pydantic `model`), or it is text that is read as it is, as
JSON, by a pattern, as a choice, or by a function of the user's own. What is sent to the model is
the schema of the structured kinds; all else is local, and costs nothing to change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Never

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from ondine_dagster.spec.accept import compiles
from ondine_dagster.spec.base import (
    LOCAL,
    QUESTION,
    REQUEST,
    VERBATIM,
    FilledText,
    ImportPath,
    Part,
    Whole,
)
from ondine_dagster.spec.choice import Choice
from ondine_dagster.spec.columns import output_column, same_column
from ondine_dagster.spec.output_field import Column, OutputField
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.values import ColumnType

__all__ = ["Output", "OutputField", "Repair"]

Repair = Literal["thoughts", "fences", "trailing_commas", "prose"]
Kind = Literal["fields", "model", "json", "pattern", "choice", "function", "text"]
_OF_JSON = ("fields", "model", "json")
# what only encloses an answer, so that nothing of it can be lost
_SAFE: tuple[Repair, ...] = ("thoughts", "fences")


def _named_groups(pattern: str) -> str:
    groups = re.compile(compiles(pattern)).groupindex
    if not groups:
        raise ValueError(
            f"is {shown(pattern)}; it must have a named group for each column, such as "
            "(?P<label>good|bad)"
        )
    for name in groups:
        output_column(name)
    return pattern


def _once_each(repairs: Any) -> Any:
    if isinstance(repairs, list | tuple) and len(set(map(str, repairs))) != len(repairs):
        raise ValueError(f"is {shown(repairs)}; it must name each repair once")
    return repairs


class Output(Part):
    """The columns that an answer becomes."""

    place: ClassVar[Location] = ("output",)

    fields: dict[Column, OutputField] = Field(
        default={},
        description="The fields of a structured answer, by name. The names are sent, and so "
        "part of the question. Empty: the answer is plain text.",
    )
    model: Annotated[ImportPath | None, QUESTION] = Field(
        default=None,
        description="A Pydantic model by import path, instead of `fields`: its JSON schema is "
        "sent, its validation decides what is accepted. Looked for beside the declaration too.",
        examples=["my_module:Review"],
    )
    format: Annotated[Literal["text", "json"], LOCAL] = Field(
        default="text",
        description="How a plain text answer is read. `json`: as any JSON, into one column, or "
        "into those of `types`; say in the prompt what you want.",
        examples=["json"],
    )
    pattern: Annotated[
        Annotated[FilledText, AfterValidator(_named_groups)] | None, LOCAL, VERBATIM
    ] = Field(
        default=None,
        description="A regular expression (Python's) with named groups: the first place of a "
        "plain text answer where it matches fills a column for each group.",
        examples=["(?P<label>good|bad), (?P<stars>[0-9]) stars"],
    )
    choice: Choice | None = Field(
        default=None,
        description="The values that a plain text answer may stand for: a list, or each value "
        "with other words for it.",
    )
    function: Annotated[ImportPath | None, LOCAL] = Field(
        default=None,
        description="A function of your own by import path: it is given the text of an answer, "
        "and returns the value, or a mapping with the columns of `types`.",
        examples=["my_module:parse"],
    )
    types: Annotated[dict[Column, ColumnType], LOCAL] = Field(
        default={},
        description="The columns that `format: json` or `function` fill, or the types of a "
        "pattern's groups (else text): string, integer, number, boolean; json is any value, as "
        "JSON text.",
        examples=[{"stars": "integer"}],
    )
    column: Annotated[Column, LOCAL] = Field(
        default="response",
        description="The name of the output column of a plain text answer.",
        examples=["summary"],
    )
    repair: Annotated[Annotated[tuple[Repair, ...], BeforeValidator(_once_each)] | None, LOCAL] = (
        Field(
            default=None,
            description="What is removed from an answer that cannot be read as it is; each use is "
            "noted in `_flags` and counted. `thoughts` (all up to `</think>`) and `fences` (of "
            "Markdown) are the default wherever a text is read as something; `trailing_commas` and "
            "`prose` (round one JSON object) are for JSON.",
            examples=[["thoughts", "fences", "prose"]],
        )
    )

    reask: Annotated[Whole, REQUEST] = Field(
        default=0,
        ge=0,
        le=1,
        description="How often a run asks again, with what was wrong, when an answer that it "
        "has just paid for is rejected. Stored answers are not asked again.",
        examples=[1],
    )

    @property
    def kind(self) -> Kind:
        """How an answer is read."""
        if self.model is not None:
            return "model"
        if self.fields:
            return "fields"
        if self.format == "json":
            return "json"
        kinds: tuple[Kind, ...] = ("pattern", "choice", "function")
        return next((one for one in kinds if getattr(self, one) is not None), "text")

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What may be taken off an answer: as declared, or what is safe for this kind."""
        if self.repair is not None:
            return self.repair
        return () if self.kind in ("text", "function") else _SAFE

    def columns(self) -> tuple[str, ...]:
        """Return the names of the output columns, in declared order."""
        if self.fields:
            return tuple(field.column or name for name, field in self.fields.items())
        return tuple(self.column_types())

    def column_types(self) -> dict[str, str]:
        """Return the output columns and their declared types, in declared order."""
        if self.fields:
            return {field.column or name: field.type for name, field in self.fields.items()}
        if self.pattern is not None:
            groups = re.compile(self.pattern).groupindex
            return {name: self.types.get(name, "string") for name in groups}
        if self.types:
            return dict(self.types)
        return {self.column: "json" if self.format == "json" else "string"}

    def voted(self) -> frozenset[str]:
        """Return the columns that hold a choice, on which several answers can vote."""
        if self.fields:
            fields = self.fields_by_column().items()
            return frozenset(name for name, field in fields if field.is_choice)
        kinds = self.column_types().items()
        return frozenset(name for name, kind in kinds if kind not in ("number", "json"))

    def fields_by_column(self) -> dict[str, OutputField]:
        """Return the declared fields by the columns that they become; none for plain text."""
        return {field.column or name: field for name, field in self.fields.items()}

    def with_fields(self, fields: Mapping[str, OutputField]) -> Output:
        """Return the same with the fields of the model that it names."""
        whole = self.model_copy(update={"fields": dict(fields)})
        whole._check_columns()
        return whole

    def refuse_contradictions(self) -> None:
        """Refuse two ways to read an answer, what has no use, and columns that are one."""
        self._check_one_kind()
        self._check_types()
        self._check_column()
        self._check_repair()
        self._check_reask()
        self._check_columns()

    def _check_one_kind(self) -> None:
        given = {
            "fields": bool(self.fields),
            "model": self.model is not None,
            "format": self.format == "json",
            "pattern": self.pattern is not None,
            "choice": self.choice is not None,
            "function": self.function is not None,
        }
        ways = [name for name, there in given.items() if there]
        if len(ways) > 1:
            text = f"is there, and so is output.{ways[0]}: an answer is read one way; remove one"
            raise refused_at((ways[1],), text, None)

    def _check_types(self) -> None:
        if not self.types:
            return
        if self.kind not in ("json", "pattern", "function"):
            text = "are for format: json, a pattern or a function; remove them"
            raise refused_at(("types",), text, None)
        if self.pattern is None:
            return
        groups = re.compile(self.pattern).groupindex
        for name, kind in self.types.items():
            if name not in groups:
                text = f"is no group of the pattern; those are: {', '.join(groups)}"
                raise refused_at(("types", name), text, None)
            if kind == "json":
                text = "is json; a group of a pattern is a string, integer, number or boolean"
                raise refused_at(("types", name), text, None)

    def _check_column(self) -> None:
        if "column" not in self.model_fields_set:
            return
        if self.kind == "model":
            self._refuse_column("the columns are those of the model; remove it")
        if self.column in self.columns() and not self.fields:
            return
        if self.fields:
            self._refuse_column("there are fields; rename them with output.fields.<name>.column")
        names = ", ".join(self.columns())
        self._refuse_column(f"the answer becomes the columns {names}; remove it")

    def _refuse_column(self, why: str) -> Never:
        text = f"is {shown(self.column)}, the column of a plain text answer, but {why}"
        raise refused_at(("column",), text, self.column)

    def _check_repair(self) -> None:
        for one in self.repair or ():
            if one not in _SAFE and self.kind not in _OF_JSON:
                text = f"has {one}, which is for answers that are read as JSON; remove it"
                raise refused_at(("repair",), text, None)

    def _check_reask(self) -> None:
        if self.reask and self.kind == "text":
            text = "is for answers that can be rejected; plain text is accepted as it is"
            raise refused_at(("reask",), text, self.reask)

    def _check_columns(self) -> None:
        seen: dict[str, str] = {}
        for name, column in zip(self.fields or self.columns(), self.columns(), strict=True):
            other = seen.setdefault(same_column(column), name)
            if other != name:
                raise refused_at(
                    ("fields" if self.fields else "types", name),
                    f"becomes the column {shown(column)}, and so does the field {shown(other)}; "
                    "give one of them another `column` (capitals make no difference)",
                    column,
                )

    @model_serializer(mode="wrap")
    def _without_unused_column(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what does not apply, so that what is written down can be read back."""
        values: dict[str, Any] = handler(self)
        if self.fields or self.kind == "model" or self.column not in self.columns():
            values.pop("column", None)
        return values
