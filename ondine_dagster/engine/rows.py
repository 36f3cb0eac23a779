"""What goes into the engine and what comes out, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ondine_dagster.ledger.records import Answer, Lost
from ondine_dagster.llm.errors import EXPLANATIONS, ErrorClass, ErrorCode, Failure
from ondine_dagster.llm.prices import CostSource
from ondine_dagster.llm.provider import NO_USAGE, Usage, Verdict, error_class_of

# the flag of an answer that was cut off, and was not asked for under the raised ceiling yet
NOT_RAISED = "ceiling_not_raised"
# the flag of an answer to a question that was asked again, because the first one was rejected
REASKED = "reasked"
# the flag of a row that was asked again because its part of a pack's answer was damaged
REPAIRED = "repaired"
# begins the flags that say what was wrong with its part of an answer
DAMAGE = "pack_"


class Outcome(StrEnum):
    """How a row ends in `responses`; every row has exactly one."""

    ANSWERED = "answered"
    ERROR = "error"
    NOT_ATTEMPTED = "not_attempted"  # the run stopped before it; the next run asks
    SKIPPED = "skipped"  # `when` is not true for it: nobody is asked
    HELD = "held"  # many requests of unknown outcome, or a paid text is gone: a person decides


WAITING = frozenset({Outcome.NOT_ATTEMPTED, Outcome.HELD})


@dataclass(frozen=True, slots=True)
class Question:
    """A row that wants an answer. `messages` is canonical JSON.

    `instead_of`: the row is asked again, and any other answer than that of this request serves. So
    two processes that ask again pay once, and what a process that died has paid is taken.
    `sample`: which of several questions of one row it is. `verify`: its answer is compared only.
    `alone`: it goes in no request with others, as it failed for what it is.
    """

    row_key: str
    answer_key: bytes
    messages: str
    instead_of: bytes | None = None
    sample: int = 0
    verify: bool = False
    alone: bool = False

    def served_by(self, answer: Answer) -> bool:
        """Return whether a stored answer is one that the row may have."""
        return self.instead_of is None or self.instead_of != answer.attempt


@dataclass(frozen=True, slots=True)
class RowEvent:
    """Something out of the ordinary in the life of a row, when (milliseconds since the epoch, UTC).

    `attempt` is the request of this run that it is about, from 1; 0 where it is about an earlier
    run's. `latency_ms` is that request's.
    """

    at_ms: int
    event: str
    attempt: int
    code: str | None = None
    message: str | None = None
    latency_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """The end of one row. Money in picodollars, latency in milliseconds of the last request.

    `cost` is what this run paid for the row (0 where the answer was there already), `unknown_cost`
    what requests of unknown outcome may have cost at most. `attempt` is the last request for it, or
    the one that brought a stored answer. `kept`: an earlier run ended the row, and paid.
    `attempts` are the requests that carried the row; `requests` those of them that are counted
    with it: a request that carried several rows is counted with one of them.
    `answer_key` and `model_requested` are told where another model than the dataset's was asked.
    `samples` are the ends of several questions of one row, which this one sums up.
    `events` are the last that went wrong on the way here; of most rows there are none.
    """

    outcome: Outcome
    text: str | None = None
    finish_reason: str | None = None
    model_served: str | None = None
    usage: Usage = NO_USAGE
    cost: int = 0
    unknown_cost: int = 0
    cost_source: CostSource | str | None = None
    attempts: int = 0
    requests: int = 0
    latency_ms: int | None = None
    error_class: ErrorClass | None = None
    code: ErrorCode | None = None
    message: str | None = None
    flags: tuple[str, ...] = ()
    attempt: bytes | None = None
    kept: bool = False
    answer_key: bytes | None = None
    model_requested: str | None = None
    samples: tuple[RowOutcome, ...] = ()
    events: tuple[RowEvent, ...] = ()

    def reused(self) -> RowOutcome:
        """Return the same end for another row with the same question: it cost that row nothing."""
        source = "reused" if self.cost_source else None
        return replace(
            self,
            cost=0,
            unknown_cost=0,
            attempts=0,
            requests=0,
            latency_ms=None,
            cost_source=source,
            events=(),
        )


def failed(outcome: Outcome, failure: Failure) -> RowOutcome:
    """Return the end of a row that brought no answer."""
    return RowOutcome(
        outcome=outcome,
        error_class=failure.error_class,
        code=failure.code,
        message=failure.message,
    )


def stored(answer: Answer) -> RowOutcome:
    """Return the end of a row whose question the ledger has answered before."""
    if answer.lost is not None:
        return _lost(answer, answer.lost)
    good = answer.verdict is Verdict.OK
    # a refusal that cost nothing has no answer: what is remembered is the provider's message
    refused = answer.verdict is Verdict.FAILED
    return RowOutcome(
        outcome=Outcome.ANSWERED if good else Outcome.ERROR,
        text=None if refused else answer.text,
        finish_reason=answer.finish_reason,
        model_served=answer.model_served,
        usage=answer.usage,
        cost_source="reused",
        error_class=error_class_of(answer.verdict),
        code=answer.code,
        message=answer.text if refused else explain(answer.code, answer.finish_reason),
        flags=answer.flags,
        attempt=answer.attempt,
    )


def _lost(answer: Answer, lost: Lost) -> RowOutcome:
    """Return the end of a row whose answer is paid and has no text: a person decides."""
    return RowOutcome(
        outcome=Outcome.HELD,
        model_served=answer.model_served,
        cost_source="reused",
        error_class=ErrorClass.UNKNOWN,
        code=lost.code,
        message=lost.message,
        attempt=answer.attempt,
    )


def explain(code: ErrorCode | None, finish_reason: str | None) -> str | None:
    """Return the sentence for a received answer of no use; None for a good one."""
    if code is None:
        return None
    reason = f" (finish_reason {finish_reason})" if finish_reason else ""
    return EXPLANATIONS[code] + reason


@dataclass(frozen=True, slots=True)
class PartitionFeed:
    """One partition to ask: its rows in order, in batches that are made when they are needed.

    A row that cannot be asked is there already with its outcome. `notes` come back with the ended
    rows: what the caller has to know of the file that it fed, whatever has replaced it since.
    """

    key: str
    batches: Iterable[Sequence[Question | RowOutcome]]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next rows of a partition, in order; `last` closes the partition.

    `keys` are the answer keys of the rows (None where there was no question), `notes` its feed's.
    """

    partition: str
    outcomes: list[RowOutcome]
    keys: list[bytes | None]
    last: bool
    notes: Mapping[str, str] = field(default_factory=dict)
