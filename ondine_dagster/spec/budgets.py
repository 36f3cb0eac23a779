"""Budgets: of one dataset in its declaration, and over all datasets in the environment.

Owns the item that both lists are made of, so that both are refused in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from ondine_dagster.errors import OndineError
from ondine_dagster.settings import BUDGET_USD_PER_DAY, BUDGETS, Settings
from ondine_dagster.spec.base import LOCAL, Part, Whole, usd_up_to
from ondine_dagster.spec.problems import Location, dotted, format_errors, readable, refused_at

# Low enough that money fits 64-bit integers of 1e-12 USD.
LARGEST_BUDGET_USD = 1_000_000
_LARGEST_COUNT = 10**15
_EXAMPLE = '[{"usd": 5, "per": "day"}]'

Unit = Literal["usd", "requests", "tokens"]
Per = Literal["run", "day", "month", "total"]
_UNITS: tuple[Unit, ...] = get_args(Unit)
BudgetUsd = Annotated[Decimal, BeforeValidator(usd_up_to(LARGEST_BUDGET_USD))]


class Budget(Part):
    """What may be used in a window: exactly one of usd, requests and tokens. 0 allows nothing."""

    place: ClassVar[Location] = ("limits", "budgets")

    usd: Annotated[BudgetUsd | None, LOCAL] = Field(
        default=None, description="The most money, in USD.", examples=[5]
    )
    requests: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=0,
        le=_LARGEST_COUNT,
        description="The most requests, retries included.",
        examples=[1000],
    )
    tokens: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=0,
        le=_LARGEST_COUNT,
        description="The most tokens, those of prompts and answers together.",
        examples=[2_000_000],
    )
    per: Annotated[Per, LOCAL] = Field(
        description="The window, in UTC. `run`: a backfill, or one call of `ondine-dagster run`; "
        "`total`: for ever.",
        examples=["day"],
    )

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self._units()[0]

    @property
    def amount(self) -> Decimal | int:
        """How much of it may be used."""
        amount: Decimal | int = getattr(self, self.unit)
        return amount

    def refuse_contradictions(self) -> None:
        """Refuse a budget of nothing, and of two things at once."""
        units = self._units()
        if len(units) != 1:
            named = " and ".join(units) or "no amount"
            text = f"has {named}; it must have exactly one of usd, requests and tokens"
            raise refused_at((), text, None)

    def _units(self) -> list[Unit]:
        return [unit for unit in _UNITS if getattr(self, unit) is not None]


def repeated(budgets: Iterable[tuple[Location, Budget]]) -> tuple[Location, str] | None:
    """Return where the first budget stands whose unit and window another has, and what to say."""
    first: dict[tuple[Unit, Per], Location] = {}
    for place, budget in budgets:
        other = first.setdefault((budget.unit, budget.per), place)
        if other != place:
            what = f"{budget.unit} per {budget.per}"
            return place, f"limits {what}, and so does `{dotted(other)}`; remove one of them"
    return None


def shared_budgets(settings: Settings) -> tuple[Budget, ...]:
    """Return the budgets over all datasets that the environment declares.

    Raises:
        OndineError: they cannot be read; the message names the variable and what would be right.
    """
    found: list[tuple[Location, Budget]] = []
    if settings.budget_usd_per_day is not None:
        amount = _read(BudgetUsd, settings.budget_usd_per_day, BUDGET_USD_PER_DAY)
        found.append(((BUDGET_USD_PER_DAY,), Budget(usd=amount, per="day")))
    if settings.budgets is not None:
        listed = read_budgets(_json(settings.budgets), BUDGETS)
        found += [((BUDGETS, position), one) for position, one in enumerate(listed)]
    if twice := repeated(found):
        raise OndineError(f"`{dotted(twice[0])}` {twice[1]}.")
    return tuple(budget for _, budget in found)


def read_budgets(items: object, where: str) -> tuple[Budget, ...]:
    """Return `items` as budgets; `where` says in messages where they stand."""
    budgets: tuple[Budget, ...] = _read(tuple[Budget, ...], items, where)
    return budgets


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        raise OndineError(
            f"{BUDGETS} is no valid JSON ({error}). It must be a list such as {_EXAMPLE}."
        ) from None


def _read(kind: Any, value: object, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        refused = readable(error, where, (where,), str)
    raise OndineError("\n".join(problem.message for problem in format_errors(refused)))
