"""How hard the server is pushed, and how often a question may be asked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.base import LOCAL, Fraction, Part, Whole
from ondine_dagster.spec.problems import Location


class Limits(Part):
    """Limits of one dataset. All are local: a change costs nothing."""

    place: ClassVar[Location] = ("limits",)

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
        description="Requests for one question in one run, retries included.",
        examples=[3],
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
