"""What a partition came to, and whether it is red. No heavy imports: events are made from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ondine_dagster.engine.rows import DAMAGE, NOT_RAISED, REASKED, REPAIRED, Outcome, RowOutcome
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.privacy.scrubbing import beginning

RESPONSES, RESULTS, REJECTED = "responses", "results", "rejected_rows"
VERIFIED = "verified"  # what `verify` compared, no asset
TRIO = (RESPONSES, RESULTS, REJECTED)
# notes of a partition: what the requests of the last run cost (picodollars), for how many rows,
# what was expected, and why rows wait
COSTS = ("ondine.cost", "ondine.asked", "ondine.expected", "ondine.why")
# note of `responses`: rows by the model that answered, as its server called it (JSON)
MODELS = "ondine.models"
_LONGEST_REASON = 300
_NOT_THE_ROWS_OWN = (ErrorClass.CONFIG, ErrorClass.CAPACITY, ErrorClass.TRANSIENT)


def too_many(rejected: int, rows: int, most: float) -> bool:
    """Return whether more rows are rejected than `limits.max_rejected` (a share) allows.

    One row of a few is a large share and says nothing: alone it counts only where none may be.
    """
    return rejected > most * rows and (rejected > 1 or most == 0)


def too_many_rejected(rejected: int, rows: int, most: float) -> str:
    """Return that a partition has too many rejected rows; `most` is the share that it may have."""
    return (
        f"{rejected} of {rows} rows are rejected ({100 * rejected / rows:.3g} %), more than "
        f"limits.max_rejected allows ({100 * most:.3g} %)"
    )


@dataclass(slots=True)
class PartitionCounts:
    """What one partition came to; money in picodollars, latency in milliseconds.

    `max_rejected` is the share of its rows that may be rejected. Latency is that of the requests of
    this run, None where there were none. Seconds are those of the step since it finished another
    partition, so that they add up over the partitions of a run.
    """

    max_rejected: float = 1.0

    rows: int = 0
    results: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    # rejected rows by error class and code, without rows that wait
    rejections: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)  # the first message of each code
    repairs: Counter[str] = field(default_factory=Counter)  # flags of answers that had to be
    reused: int = 0
    reasked: int = 0  # rows whose first answer was rejected and asked for once more
    asked: int = 0  # rows that requests were sent for
    questions: int = 0  # the same, each sample by itself
    requests: int = 0
    retries: int = 0  # requests that repeated another one
    carried: int = 0  # rows that the requests carried, each as often as it was asked
    repaired: int = 0  # rows that were asked again because their part of an answer was damaged
    damages: Counter[str] = field(default_factory=Counter)  # of these, how it was, as flags
    cost: int = 0
    unknown_cost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_sources: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)  # rows by the model that answered
    latency_p50: float | None = None
    latency_p95: float | None = None
    throttled_seconds: float = 0
    paused_seconds: float = 0
    rows_per_second: float | None = None  # of the step so far
    preview: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)  # asset -> rows
    answers: int = 0  # rows with an answer, usable or not
    kept_cut: bool = False  # an answer is cut that was not asked for again by this run
    not_raised: bool = False  # an answer is cut that could not be asked for again
    kept_older: bool = False
    texts_gone: bool = False  # of the files in place: purged, or under a lost key
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # asset -> name -> type
    source_columns: Sequence[str] = ()

    def add_costs(self, outcome: RowOutcome) -> None:
        """Count what a row cost in the run that asked it."""
        answered = outcome.text is not None
        self.answers += answered
        self.reused += answered if outcome.kept else outcome.cost_source == "reused"
        self.asked += outcome.attempts > 0 and not outcome.kept
        for one in outcome.samples or (outcome,):
            self._add_question(one)

    def _add_question(self, outcome: RowOutcome) -> None:
        if outcome.kept:
            self.kept_cut |= outcome.code is ErrorCode.TRUNCATED
            return
        self.cost += outcome.cost
        self.unknown_cost += outcome.unknown_cost
        self.requests += outcome.requests
        self.retries += max(0, outcome.requests - 1)
        self.carried += outcome.attempts
        if REPAIRED in outcome.flags and outcome.attempts > 0:
            self.repaired += 1
            self.damages.update(one for one in outcome.flags if one.startswith(DAMAGE))
        self.not_raised |= NOT_RAISED in outcome.flags
        self.questions += outcome.attempts > 0
        self.reasked += REASKED in outcome.flags
        if outcome.cost_source != "reused":
            self.prompt_tokens += outcome.usage.prompt_tokens or 0
            self.completion_tokens += outcome.usage.completion_tokens or 0
            self.cached_tokens += outcome.usage.cached_tokens or 0

    @property
    def rejected(self) -> int:
        """Return how many rows have no result."""
        return self.rows - self.results

    @property
    def rejected_codes(self) -> Counter[str]:
        """Return the rejected rows by error code, without rows that wait."""
        codes: Counter[str] = Counter()
        for (_, code), rows in self.rejections.items():
            codes[code] += rows
        return codes

    @property
    def unanswered(self) -> int:
        """Return how many rows nobody has an answer or a final failure for."""
        return self.outcomes[Outcome.NOT_ATTEMPTED] + self.outcomes[Outcome.HELD]

    @property
    def lost(self) -> int:
        """Return how many rows wait because the text of a paid answer is gone."""
        return self.codes[ErrorCode.ANSWER_PURGED] + self.codes[ErrorCode.ANSWER_UNREADABLE]

    @property
    def wants_paying(self) -> bool:
        """Return whether only paying once more completes the partition."""
        return self.lost > 0 or (self.kept_older and self.texts_gone)

    @property
    def skipped(self) -> int:
        """Return for how many rows `when` is not true; they are among `results`."""
        return self.outcomes[Outcome.SKIPPED]

    @property
    def rejected_for_good(self) -> int:
        """Return how many rows have an answer or a final failure, and no result."""
        return self.rejected - self.unanswered

    @property
    def why_waiting(self) -> str:
        """Return the reason of most of the rows that wait, shortened; empty where none does."""
        waiting = (self.codes - self.rejected_codes) or (self.codes if self.incomplete else None)
        if not waiting:
            return ""
        return beginning(self.messages[waiting.most_common(1)[0][0]], _LONGEST_REASON)

    @property
    def red(self) -> bool:
        """Return whether the partition failed."""
        return self.incomplete or self.too_many_rejected

    @property
    def too_many_rejected(self) -> bool:
        """Return whether more of its rows are rejected than may be."""
        return too_many(self.rejected_for_good, self.rows - self.skipped, self.max_rejected)

    @property
    def incomplete(self) -> bool:
        """Return whether something in the partition waits for another run.

        Also where the provider was out or the declaration is wrong: it answered no row, and failed
        in a way that is not the rows' own.
        """
        failed = any(self.classes[one] for one in _NOT_THE_ROWS_OWN)
        return self.unanswered > 0 or self.kept_older or (failed and not self._any_answer)

    @property
    def _any_answer(self) -> bool:
        return self.outcomes[Outcome.ANSWERED] > 0
