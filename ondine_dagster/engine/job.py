"""Questions on their way through the engine, alone or several in one request, and their costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from ondine_dagster.engine.rows import (
    DAMAGE,
    NOT_RAISED,
    REPAIRED,
    Outcome,
    Question,
    RowEvent,
    RowOutcome,
)
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.records import AttemptKind
from ondine_dagster.llm.packing import packable
from ondine_dagster.privacy.scrubbing import beginning

# so many requests for a pack may time out before its questions are asked alone
_TIMEOUTS = 2
# so many events of a row are kept, the last ones, and so much of what they say
MOST_EVENTS, LONGEST_MESSAGE = 20, 300


# partition, messages before the last, sample, whether it is asked again
Company = tuple[str, str, int, bool]


@dataclass(slots=True, eq=False)
class Job:
    """A question on its way, and what it has cost so far (picodollars).

    `attempts` are the requests that carried it, `requests` those that it was the first question
    of: so the requests of all rows add up.
    `probes` are attempts that found the provider still out, or their key refused while there was
    another one: they say nothing of the question.
    `repairs` are attempts because its part of a pack's answer was damaged, `damages` say how.
    `raised`: its answer was cut off, and it is asked again under the raised ceiling. `reasked`: its
    answer was rejected, and it is asked again with the reason. `last` is the last request.
    `prefix` and `text` are its messages where it may go with others: what they have in common, and
    its own.
    `events` are what went wrong with it; there are none as long as nothing does.
    """

    question: Question
    partition: str
    cost: int = 0
    unknown_cost: int = 0
    attempts: int = 0
    requests: int = 0
    probes: int = 0
    repairs: int = 0
    damages: list[str] = field(default_factory=list)
    latency_ms: int | None = None
    prefix: str = ""
    text: str = ""
    raised: bool = False
    reasked: bool = False
    last: bytes | None = None
    events: deque[RowEvent] | None = None

    @property
    def extras(self) -> int:
        """Return how many requests it has had beyond those that `max_attempts` counts."""
        return self.probes + self.repairs + self.raised + self.reasked

    def note(self, event: str, code: str | None = None, message: str | None = None) -> None:
        """Remember what went wrong, for whoever looks at the row if it is rejected in the end."""
        if self.events is None:
            self.events = deque(maxlen=MOST_EVENTS)
        said = beginning(message, LONGEST_MESSAGE) if message else None
        self.events.append(RowEvent(now_ms(), event, self.attempts, code, said, self.latency_ms))

    def goes_with(self) -> Company | None:
        """Return what questions have in common that go together; None: it goes alone.

        Samples of one row do not: one answer would copy the other. Those that are asked again are
        requests of another kind.
        """
        question = self.question
        found = packable(question.messages)
        if self.raised or self.reasked or question.alone or found is None:
            return None
        self.prefix, self.text = found.prefix, found.text
        return self.partition, self.prefix, question.sample, question.instead_of is not None

    def charged(self, outcome: RowOutcome) -> RowOutcome:
        """Return the end of the row with what its requests have cost."""
        if not self.attempts:
            return outcome
        return replace(
            outcome,
            cost=self.cost,
            unknown_cost=self.unknown_cost,
            attempts=self.attempts,
            requests=self.requests,
            latency_ms=self.latency_ms,
            flags=(*outcome.flags, *self._repaired()) if self.repairs else outcome.flags,
            events=tuple(self.events) if self.events else (),
        )

    def _repaired(self) -> tuple[str, ...]:
        return REPAIRED, *(f"{DAMAGE}{one}" for one in dict.fromkeys(self.damages))


@dataclass(slots=True, eq=False)
class Pack:
    """Questions that go together in one request; most often it is one.

    `jobs` are those still to be asked. The others have `ended`, are `taken` (another process is
    asking them, or they had better wait), or go on in the smaller packs of `again`.
    `repair` counts how often their answers were damaged: half as many together, then each alone.
    `timeouts` are requests whose answer did not come in time.
    """

    jobs: list[Job]
    kind: AttemptKind = "first"
    repair: int = 0
    timeouts: int = 0
    ended: list[tuple[Job, RowOutcome]] = field(default_factory=list)
    taken: list[Job] = field(default_factory=list)
    again: list[Pack] = field(default_factory=list)

    @property
    def too_slow(self) -> bool:
        """Return whether its questions are too many to be answered in time, as it seems.

        Each such request may have been billed, so there is no time to find out by halves.
        """
        return self.timeouts >= _TIMEOUTS and len(self.jobs) > 1

    def end(self, job: Job, outcome: RowOutcome) -> None:
        """One question ends."""
        self.jobs.remove(job)
        self.ended.append((job, outcome))

    def end_all(self, outcome: RowOutcome) -> None:
        """All questions that are left end alike."""
        for job in tuple(self.jobs):
            self.end(job, outcome)

    def leave(self, *jobs: Job) -> None:
        """Look at these questions again later, at all that are left where none is named."""
        for job in jobs or tuple(self.jobs):
            self.jobs.remove(job)
            self.taken.append(job)

    def repair_all(self, asked: int) -> None:
        """Ask what is left again, whose part of a paid answer was damaged: fewer at a time.

        `asked` is how many questions that request had.
        """
        for job in self.jobs:
            job.repairs += 1
        self._go_on(asked // 2 if self.repair == 0 else 1, self.repair + 1)

    def ask_alone(self) -> None:
        """Ask each question that is left alone."""
        self._go_on(1, self.repair)

    def halve(self) -> None:
        """Ask what is left in two requests: together it does not go, and that cost nothing."""
        self._go_on((len(self.jobs) + 1) // 2, self.repair)

    def _go_on(self, most: int, repair: int) -> None:
        pieces = (self.jobs[first : first + most] for first in range(0, len(self.jobs), most))
        # without a request so far it was only too dear
        kind = "split" if self.jobs and self.jobs[0].attempts else self.kind
        self.again += [Pack(jobs, kind, repair) for jobs in pieces]
        self.jobs = []


def longer_or_cut(cut: RowOutcome, longer: RowOutcome) -> RowOutcome:
    """Return the longer answer; where none came, the cut one, which is paid for."""
    if longer.text is not None:
        return longer
    message = f"{cut.message}. Under the raised ceiling no answer came: {longer.message}"
    later = longer.outcome is Outcome.NOT_ATTEMPTED
    return replace(cut, message=message, flags=(*cut.flags, NOT_RAISED) if later else cut.flags)
