"""What happens in a run, as it is told to whoever listens: typed, frozen, and for no one's harm.

The engine tells of requests, the step that uses it of everything else. A listener is called where
the thing happens and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, runtime_checkable

from ondine_dagster.engine.job import Job
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.records import RequestContext, Reservation, Settlement
from ondine_dagster.llm.errors import Failure
from ondine_dagster.llm.prices import usd


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A row that a request carries; `attempt` is its number among the row's of this run, from 1."""

    row_key: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `at_ms` is when: milliseconds since the epoch, UTC."""

    run_id: str
    dataset: str
    at_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run begins to ask for so many rows; answers that are there already are among them."""

    partitions: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(Event):
    """A request is about to leave. `request` is its id in the ledger; most carry one row."""

    partition: str
    request: str
    model: str
    rows: tuple[AskedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(Event):
    """A request has ended, and the ledger knows how.

    `state`: settled (paid), released (free) or unknown (may have been billed). `cost_usd` is None
    where nobody knows it. `code` is None for a good answer; `message` is then None as well.
    """

    partition: str
    request: str
    model: str
    rows: tuple[AskedRow, ...]
    state: str
    latency_ms: int | None
    cost_usd: Decimal | None
    error_class: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEnded(Event):
    """A row has its end. `outcome` is ok, skipped, rejected, or that it waits for another run.

    `attempt` counts the requests of this run that carried it: 0 where its answer was there already.
    """

    partition: str
    row_key: str
    outcome: str
    attempt: int
    cost_usd: Decimal
    error_class: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFinished(Event):
    """The files of a partition are written. `failed` where it has to run again."""

    partition: str
    rows: int
    results: int
    rejected: int
    waiting: int
    skipped: int
    reused: int
    requests: int
    cost_usd: Decimal
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something that a person should know; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run has stopped asking. `error` is why, where it did not end as it should."""

    rows: int
    requests: int
    cost_usd: Decimal
    error: str | None = None


Hear = Callable[[Event], object]


@runtime_checkable
class Observer(Protocol):
    """Who is told of events, one after the other, in a thread that belongs to no run."""

    def on_event(self, event: Event) -> object:
        """Take in an event. What it returns or raises changes nothing."""


def request_sent(
    context: RequestContext, reservation: Reservation, jobs: Sequence[Job]
) -> RequestSent:
    """Return that a request for `jobs`, which have not counted it yet, is about to leave."""
    return RequestSent(
        run_id=context.run_id or context.run_scope,
        dataset=context.dataset,
        partition=jobs[0].partition,
        request=reservation.attempt.hex(),
        model=context.model,
        rows=tuple(AskedRow(job.question.row_key, job.attempts + 1) for job in jobs),
    )


def attempt_ended(
    sent: RequestSent, settled: Settlement, failure: Failure | None, latency_ms: int | None
) -> AttemptEnded:
    """Return how the request that was `sent` has ended; `failure` where it brought no answer."""
    return AttemptEnded(
        run_id=sent.run_id,
        dataset=sent.dataset,
        partition=sent.partition,
        request=sent.request,
        model=settled.model_served or sent.model,
        rows=sent.rows,
        state=settled.state,
        latency_ms=latency_ms,
        cost_usd=None if settled.cost is None else usd(settled.cost),
        error_class=settled.error_class,
        code=settled.code,
        message=failure.message if failure else None,
    )
