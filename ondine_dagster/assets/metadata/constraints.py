"""What every value of an output column fulfils, in words and as bounds.

An answer that does not is a rejected row, so that nobody downstream has to look at it again.
"""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from ondine_dagster.spec import AcceptList, AcceptPattern, AcceptRange, Dataset, OutputField
from ondine_dagster.spec.values import Scalar
from ondine_dagster.wording import listed

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Constraints:
    """What holds for the values of one column; `type` is the declared one."""

    type: str
    nullable: bool
    allowed: tuple[Scalar, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None

    def in_words(self) -> list[str]:
        """Return what holds apart from type and NULL, each in a few words."""
        words = []
        if self.allowed is not None:
            words.append(f"one of: {listed(self.allowed, _SHOWN)}")
        if self.minimum is not None:
            words.append(f"at least {self.minimum:g}")
        if self.maximum is not None:
            words.append(f"at most {self.maximum:g}")
        if self.pattern is not None:
            words.append(f"matches {self.pattern}")
        return words

    def of_dagster(self) -> dg.TableColumnConstraints:
        """Return them as Dagster shows them beside a column."""
        return dg.TableColumnConstraints(nullable=self.nullable, other=self.in_words())


def constraints_of(dataset: Dataset) -> dict[str, Constraints]:
    """Return what holds for each output column of `results`, in declared order."""
    output, fields = dataset.output, dataset.output.fields_by_column()
    found = {name: Constraints(kind, nullable=True) for name, kind in output.column_types().items()}
    if output.choice is not None:
        allowed = tuple(output.choice.values)
        found[output.column] = Constraints("string", dataset.when is not None, allowed)
    # rows that `when` skips are among the results, without values
    return found | {
        name: _of_field(field, skipped=dataset.when is not None) for name, field in fields.items()
    }


def _of_field(field: OutputField, *, skipped: bool) -> Constraints:
    accept = field.accept
    low, high = field.minimum, field.maximum
    if isinstance(accept, AcceptRange):
        low = max((one for one in (low, accept.minimum) if one is not None), default=None)
        high = min((one for one in (high, accept.maximum) if one is not None), default=None)
    return Constraints(
        type=field.type,
        nullable=skipped or not field.required,
        allowed=accept.values if isinstance(accept, AcceptList) else field.enum,
        minimum=low,
        maximum=high,
        pattern=accept.pattern if isinstance(accept, AcceptPattern) else None,
    )
