"""`accept`: a local, narrower idea of a good value. Not sent, so changing it costs nothing."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, RootModel

from ondine_dagster.patterns import OwnPattern
from ondine_dagster.spec.base import LOCAL, VERBATIM, FilledText, Number, Part
from ondine_dagster.spec.keys import advice
from ondine_dagster.spec.problems import Location, dotted, refused_at, shown
from ondine_dagster.spec.values import ListedValue, Scalar

_RULE_KEYS = ("minimum", "maximum", "pattern")


class AcceptList(RootModel[tuple[ListedValue, ...]]):
    """Only these values are accepted; other answers are rejected, with their raw text."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The accepted values."""
        return self.root


class _Rule(Part):
    """A rule with keys: bounds or a pattern, and a typing error may have meant either."""

    place: ClassVar[Location] = ("output", "fields", "*", "accept")

    @classmethod
    def _advise(cls, key: str) -> str:
        if key in _RULE_KEYS:
            return "a rule has bounds or a pattern, not both"
        return advice(dotted(cls.place), key, _RULE_KEYS, ())


class AcceptRange(_Rule):
    """Only numbers within these bounds, bounds included, are accepted."""

    minimum: Annotated[Number | None, LOCAL] = Field(
        default=None, description="The lowest accepted number.", examples=[1]
    )
    maximum: Annotated[Number | None, LOCAL] = Field(
        default=None, description="The highest accepted number.", examples=[5]
    )

    def refuse_contradictions(self) -> None:
        """Refuse bounds between which there is nothing, and a rule without bounds."""
        if self.minimum is None and self.maximum is None:
            raise refused_at((), "has no bounds; it must have a minimum, a maximum, or both", None)
        refuse_crossed(self.minimum, self.maximum)


def compiles(pattern: str) -> str:
    """Return `pattern`; raises ValueError where it is no regular expression."""
    try:
        OwnPattern(pattern)
    except re.error as error:
        raise ValueError(
            f"is {shown(pattern)}; it must be a regular expression ({error})"
        ) from None
    return pattern


class AcceptPattern(_Rule):
    """Only text that matches as a whole is accepted."""

    pattern: Annotated[FilledText, AfterValidator(compiles), LOCAL, VERBATIM] = Field(
        description="A regular expression (Python's) that the whole text must match.",
        examples=["[A-Z]{2}-[0-9]+"],
    )


def refuse_crossed(minimum: float | None, maximum: float | None) -> None:
    """Raise if no number can lie between the bounds."""
    if minimum is not None and maximum is not None and minimum > maximum:
        raise refused_at(
            ("minimum",), f"is {minimum}, above the maximum {maximum}; no value fits", minimum
        )


def _by_shape(value: Any) -> Any:
    """Choose the kind of rule by its shape, so that an error speaks of that kind alone."""
    if value is None or isinstance(value, (AcceptList, AcceptRange, AcceptPattern)):
        return value
    if isinstance(value, (list, tuple)):
        return AcceptList.model_validate(value)
    if isinstance(value, dict):
        return (AcceptPattern if "pattern" in value else AcceptRange).model_validate(value)
    raise ValueError(
        f"is {shown(value)}; it must be a list of values, {{minimum, maximum}} or {{pattern}}"
    )


Accept = Annotated[AcceptList | AcceptRange | AcceptPattern, BeforeValidator(_by_shape)]
