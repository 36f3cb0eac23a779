"""What all parts of a declaration share: frozen models, friendly refusals, field markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ondine_dagster.spec.keys import advice
from ondine_dagster.spec.problems import Location, dotted, readable, shown
from ondine_dagster.spec.providers import is_import_path

# Far above any price, and low enough that money fits 64-bit integers of 1e-12 USD.
DEAREST_USD = 10_000

Role = Literal["question", "request", "local"]


class FieldRole:
    """What a field is for, which decides what a change of it costs.

    `question`: part of what is asked; a change asks again and pays. `request`: sent, but not part
    of the question; stored answers stay valid. `local`: never sent; a change costs nothing.
    """

    def __init__(self, role: Role) -> None:
        self.role: Role = role


class Braces:
    """What `{{ }}` in a text means when YAML is loaded.

    `TEMPLATED`: `{{ env('NAME') }}` is resolved. `VERBATIM`: it is left as it is, because the
    text is for the rows, for the model or for answers. Elsewhere it is refused.
    """


QUESTION, REQUEST, LOCAL = FieldRole("question"), FieldRole("request"), FieldRole("local")
TEMPLATED, VERBATIM = Braces(), Braces()


def _no_blank(value: str) -> str:
    if not value.strip():
        raise ValueError(f"is {shown(value)}; it must be text that is not empty")
    return value


def _import_path(path: str) -> str:
    if not is_import_path(path):
        raise ValueError(f"is {shown(path)}; it must be an import path such as my_module:Name")
    return path


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"is {shown(value)}; it must be a number")
    return value


def usd_up_to(most: int) -> Callable[[Any], Decimal]:
    """Return a validator that reads money without passing through binary fractions."""

    def decimal(value: Any) -> Decimal:
        try:
            if isinstance(value, bool):
                raise InvalidOperation
            amount = value if isinstance(value, Decimal) else Decimal(str(value))
        except InvalidOperation:
            raise ValueError(
                f"is {shown(value)}; it must be an amount in USD such as 0.15"
            ) from None
        if not amount.is_finite() or not 0 <= amount <= most:
            raise ValueError(f"is {shown(value)}; it must be an amount in USD, 0 to {most}")
        return amount

    return decimal


Text = Annotated[str, Strict()]
FilledText = Annotated[str, Strict(), AfterValidator(_no_blank)]
ImportPath = Annotated[FilledText, AfterValidator(_import_path)]
Whole = Annotated[int, Strict()]
Fraction = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[int | float, BeforeValidator(_number)]
Usd = Annotated[Decimal, BeforeValidator(usd_up_to(DEAREST_USD))]


class Part(BaseModel):
    """A part of a declaration: frozen, without unknown keys, with refusals that people can read.

    Raises:
        pydantic.ValidationError: one sentence per problem; `format_errors` lists them.
    """

    # The input is hidden from pydantic's own text: a key pasted in the wrong place must not
    # reach a log. Our sentences show values where that is safe.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    place: ClassVar[Location] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _speak_plainly(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            part = handler(cls.written_out(data, info.context or {}))
            part.refuse_contradictions()
        except ValidationError as error:
            raise readable(error, cls.__name__, cls.place, cls._advise) from None
        return part

    @classmethod
    def written_out(cls, data: Any, context: Mapping[str, Any]) -> Any:
        """Return the long form of `data`, where this part has a short one.

        `context` is what the validation was called with. Raises `refused_at`.
        """
        return data

    def refuse_contradictions(self) -> None:
        """Raise `refused_at` where settings that are right by themselves do not fit together.

        A hook and not a validator of its own: pydantic would run it outside of `_speak_plainly`.
        """

    def declared(self, *roles: FieldRole) -> dict[str, Any]:
        """Return what is declared (not None) of settings that have one of these roles, by name."""
        fields = type(self).model_fields.items()
        marked = [name for name, info in fields if any(role in info.metadata for role in roles)]
        return {name: value for name in marked if (value := getattr(self, name)) is not None}

    @classmethod
    def _advise(cls, key: str) -> str:
        return advice(dotted(cls.place), key, tuple(cls.model_fields), _all_settings())


def _all_settings() -> list[str]:
    return [dotted((*part.place, name)) for part in _parts_of(Part) for name in part.model_fields]


def _parts_of(part: type[Part]) -> Iterator[type[Part]]:
    for own in part.__subclasses__():
        yield own
        yield from _parts_of(own)
