"""What may be spent, how hard the server is pushed, and how often a question may be asked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.base import LOCAL, Flag, Fraction, Part, Whole
from ondine_dagster.spec.budgets import Budget, BudgetUsd, repeated
from ondine_dagster.spec.problems import Location, refused_at, shown

_FASTEST = 10**9  # per minute or day: beyond any provider
Percent = Annotated[Whole, Field(ge=1, le=99)]


class Limits(Part):
    """Limits of one dataset. All are local: a change costs nothing.

    Budgets hold for all runs and processes together. What a request may cost at most is set aside
    before it is sent, so no budget is ever passed.
    """

    place: ClassVar[Location] = ("limits",)

    budget_usd: Annotated[BudgetUsd | None, LOCAL] = Field(
        default=None,
        description="The most money that this dataset may ever cost, in USD. When it is used up, "
        "the other rows wait; raise it and run again, and only they are paid.",
        examples=[5],
    )
    budgets: tuple[Budget, ...] = Field(
        default=(),
        description="More budgets: of money, requests or tokens, per run, day, month or in total, "
        "as in `[{usd: 1, per: day}, {requests: 1000, per: run}]`.",
    )
    warn_at_percent: Annotated[tuple[Percent, ...], LOCAL] = Field(
        default=(75, 90),
        description="At which percentages of a budget a run warns, each once per window.",
        examples=[[50, 75, 90]],
    )
    requests_per_minute: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=1,
        le=_FASTEST,
        description="Requests sent per minute, over all processes that ask this model of this "
        "server.",
        examples=[500],
    )
    tokens_per_minute: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=1,
        le=_FASTEST,
        description="Tokens per minute, of prompts and answers, over the same processes.",
        examples=[200_000],
    )
    requests_per_day: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=1,
        le=_FASTEST,
        description="Requests per UTC day, over the same processes. When they are used up, the "
        "other rows wait for another run.",
        examples=[1000],
    )
    tokens_per_day: Annotated[Whole | None, LOCAL] = Field(
        default=None,
        ge=1,
        le=_FASTEST,
        description="Tokens per UTC day, of prompts and answers, over the same processes.",
        examples=[1_000_000],
    )
    concurrency: Annotated[Whole, LOCAL] = Field(
        default=16,
        ge=1,
        le=1000,
        description="Requests in flight at the same time, over all partitions of a run.",
        examples=[64],
    )
    max_attempts: Annotated[Whole, LOCAL] = Field(
        default=5,
        ge=1,
        description="Requests for one question in one run, retries included. Not counted: a "
        "request repeated with another API key, because its own was refused, and requests that "
        "only found out that the server is still down.",
        examples=[3],
    )
    max_rejected: Annotated[Fraction, LOCAL] = Field(
        default=0.05,
        ge=0,
        le=1,
        description="The share of its rows, 0 to 1, that a partition may have rejected. With more "
        "it is red, but its files are written: `ondine-dagster retry` asks again for "
        "its rejected rows. A single rejected row never makes a partition red, except with 0.",
        examples=[0.2],
    )
    max_unknown: Annotated[Whole, LOCAL] = Field(
        default=2,
        ge=0,
        description="How often a question may be asked again, over all runs, after a request whose "
        "outcome is unknown (connection lost, process killed): each may have been billed.",
        examples=[0],
    )
    on_unknown: Annotated[Literal["reask", "hold"], LOCAL] = Field(
        default="reask",
        description="What to do after an unknown outcome: `reask` within max_unknown, or `hold` "
        "until a person resolves it with `ondine-dagster ledger resolve`.",
        examples=["hold"],
    )
    drain_seconds: Annotated[Fraction, LOCAL] = Field(
        default=20.0,
        ge=0,
        description="Seconds that a stopped run waits for the answers of requests in flight.",
        examples=[5],
    )
    timeout_seconds: Annotated[Fraction, LOCAL] = Field(
        default=120.0,
        gt=0,
        description="Seconds to wait for one answer. A request that times out may be billed.",
        examples=[60],
    )
    max_outage_seconds: Annotated[Fraction, LOCAL] = Field(
        default=600.0,
        ge=0,
        description="Seconds to wait for a server that is down, asking it now and then. After "
        "that the other rows wait for another run.",
        examples=[60],
    )

    preflight: Annotated[Flag | None, LOCAL] = Field(
        default=None,
        description="Whether key, model and what the model takes are looked up at the provider "
        "before the first request of a run, which costs nothing. Default: yes, but not for a "
        "server on this machine.",
        examples=[False],
    )
    pilot_rows: Annotated[Whole, LOCAL] = Field(
        default=20,
        ge=0,
        le=1000,
        description="The first rows that a run asks are judged (`checks.pilot`) before the others "
        "are sent, where it asks at least twice as many. 0: none.",
        examples=[0],
    )

    def all_budgets(self) -> tuple[Budget, ...]:
        """Return the budgets, `budget_usd` among them."""
        if self.budget_usd is None:
            return self.budgets
        return Budget(usd=self.budget_usd, per="total"), *self.budgets

    def refuse_contradictions(self) -> None:
        """Refuse two budgets of the same, and percentages that do not rise."""
        places: list[Location] = [("limits", "budgets", i) for i in range(len(self.budgets))]
        if self.budget_usd is not None:
            places.insert(0, ("limits", "budget_usd"))
        if twice := repeated(zip(places, self.all_budgets(), strict=True)):
            raise refused_at(twice[0][1:], twice[1], None)
        percents = self.warn_at_percent
        if list(percents) != sorted(set(percents)):
            text = f"is {shown(list(percents))}; it must rise, as in [75, 90]"
            raise refused_at(("warn_at_percent",), text, None)
