"""What is looked at by itself, and from when on it is worth a warning or an error.

All of it is local: checks read what is there and never ask a model.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.accept import refuse_crossed
from ondine_dagster.spec.base import LOCAL, VERBATIM, Fraction, Number, Part
from ondine_dagster.spec.output import Output
from ondine_dagster.spec.problems import Location, refused_at
from ondine_dagster.spec.values import ListedValue, complaint

Share = Annotated[Fraction, Field(ge=0, le=1)]
Severity = Literal["warn", "error"]
CheckName = Literal[
    "source_keys",
    "source_not_shrunk",
    "rows_fit_partitions",
    "labelled",
    "up_to_date",
    "complete",
    "one_model",
    "cost_per_row",
    "budget_left",
    "unknown_money",
    "ledger",
    "rows_add_up",
    "fields",
    "rejected_share",
    "drift",
]


class PilotChecks(Part):
    """When the first rows of a run are so bad that the others are not sent."""

    place: ClassVar[Location] = ("checks", "pilot")

    max_rejected: Annotated[Share, LOCAL] = Field(
        default=0.5,
        description="The share of the pilot's rows that may be rejected, 0 to 1. With more, the "
        "run stops.",
        examples=[0.2],
    )
    max_cost_ratio: Annotated[Fraction, LOCAL] = Field(
        default=3.0,
        gt=0,
        description="How many times its expected cost a row of the pilot may cost on average.",
        examples=[1.5],
    )


class FieldChecks(Part):
    """What the values of one output column should look like, over all partitions.

    Nothing is rejected for it: that is what `output.fields.*.accept` is for.
    """

    place: ClassVar[Location] = ("checks", "fields", "*")

    min_filled: Annotated[Share | None, LOCAL] = Field(
        default=None,
        description="The share of rows that must have a value: not NULL and not blank. Default: "
        "0.9 for a required field, 0.01 for another.",
        examples=[0.99],
    )
    allowed: Annotated[tuple[ListedValue, ...] | None, LOCAL, VERBATIM] = Field(
        default=None,
        description="The only values that are expected. Default: those of the field's accept or "
        "enum.",
        examples=[["positive", "negative"]],
    )
    minimum: Annotated[Number | None, LOCAL] = Field(
        default=None,
        description="The lowest number that is expected. Default: that of the field.",
        examples=[1],
    )
    maximum: Annotated[Number | None, LOCAL] = Field(
        default=None,
        description="The highest number that is expected. Default: that of the field.",
        examples=[9],
    )
    max_same: Annotated[Share, LOCAL] = Field(
        default=0.98,
        description="The share that the most common value may have, from 50 values on. A model "
        "that always answers the same is the failure that nobody sees.",
        examples=[0.8],
    )

    def refuse_contradictions(self) -> None:
        """Refuse bounds between which there is nothing."""
        refuse_crossed(self.minimum, self.maximum)


class Checks(Part):
    """Thresholds of the checks. The defaults find what is clearly broken."""

    place: ClassVar[Location] = ("checks",)

    max_shrink: Annotated[Share, LOCAL] = Field(
        default=0.1,
        description="The share of its rows that the source may lose, compared with the largest of "
        "the last snapshots.",
        examples=[0],
    )
    max_cost_ratio: Annotated[Fraction, LOCAL] = Field(
        default=2.0,
        gt=0,
        description="How many times what the plan expected a row may have cost.",
        examples=[1.2],
    )
    max_drift: Annotated[Share, LOCAL] = Field(
        default=0.0,
        description="The share of the rows asked again by `ondine-dagster verify` whose values may "
        "differ from those before. Sampled answers are hardly ever all the same.",
        examples=[0.05],
    )
    fields: dict[str, FieldChecks] = Field(
        default={},
        description="What is expected of the values of an output column, by the column's name.",
    )
    severity: Annotated[dict[CheckName, Severity], LOCAL] = Field(
        default={},
        description="`warn` or `error`, by the name of a check; `fields` are those of all columns.",
        examples=[{"labelled": "error", "fields": "warn"}],
    )
    blocking: Annotated[tuple[CheckName, ...], LOCAL] = Field(
        default=(),
        description="Checks that fail the step, so that nothing after it runs. They are errors.",
        examples=[["fields", "rejected_share"]],
    )
    pilot: PilotChecks = Field(
        default=PilotChecks(),
        description="What stops a run after its first `limits.pilot_rows` rows.",
    )


def refuse_strange_checks(checks: Checks, output: Output) -> None:
    """Refuse checks of columns that there are not, and of values that they cannot have."""
    types = output.column_types()
    if output.kind == "model" and not output.fields:
        return  # its columns are not known before it is imported
    for column, check in checks.fields.items():
        place: Location = ("checks", "fields", column)
        if column not in output.columns():
            text = f"is no output column; those are: {', '.join(output.columns())}"
            raise refused_at(place, text, None)
        kind = types[column]
        if check.allowed is not None and (strange := complaint(check.allowed, kind)):
            raise refused_at((*place, "allowed"), strange, None)
        bounded = check.minimum is not None or check.maximum is not None
        if bounded and kind not in ("integer", "number"):
            raise refused_at(place, f"has bounds, but the column is of type {kind}", None)
