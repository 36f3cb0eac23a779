"""`batching`: how many rows go into one request."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ondine_dagster.spec.base import REQUEST, Part
from ondine_dagster.spec.problems import Location, refused_at, shown

MOST_ROWS = 1000
Rows = int | Literal["auto"]


def _rows(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ROWS
    if not whole and value != "auto":
        raise ValueError(f"is {shown(value)}; it must be a whole number, 1 to {MOST_ROWS}, or auto")
    return value


class Batching(Part):
    """How many rows are asked about in one request, and in what form."""

    place: ClassVar[Location] = ("batching",)

    rows_per_request: Annotated[Rows, BeforeValidator(_rows), REQUEST] = Field(
        default=1,
        description="The most rows in one request, so that the part of the prompt that is the same "
        "for all of them is paid once: 1 to 1000, or `auto`. A row keeps its own answer, and a "
        "change asks nobody again. Rows with images or documents go alone.",
        examples=["auto", 25],
    )
    format: Annotated[Literal["json", "csv"], REQUEST] = Field(
        default="json",
        description="How several rows are written in a request and in its answer: `json`, or "
        "`csv`, which is shorter and only for fields of plain values.",
        examples=["csv"],
    )

    @model_validator(mode="after")
    def _has_packs_to_format(self) -> Self:
        if self.rows_per_request == 1 and self.format != "json":
            text = (
                f"is {self.format}, but each row goes in a request of its own; say how many go "
                "together (`batching.rows_per_request: auto`), or leave it out"
            )
            raise refused_at(("format",), text, self.format)
        return self

    @property
    def asks_for_json(self) -> bool:
        """Whether answers have a schema, also those to rows that are asked for plain text."""
        return self.rows_per_request != 1 and self.format == "json"
