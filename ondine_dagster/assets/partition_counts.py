"""What a partition came to, and whether it is red. No heavy imports: events are made from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ondine_dagster.engine.rows import Outcome

RESPONSES, RESULTS, REJECTED = "responses", "results", "rejected_rows"
TRIO = (RESPONSES, RESULTS, REJECTED)


@dataclass(slots=True)
class PartitionCounts:
    """What one partition came to; money in picodollars, latency in milliseconds."""

    rows: int = 0
    results: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)  # the first message of each code
    reused: int = 0
    requests: int = 0
    retries: int = 0
    cost: int = 0
    unknown_cost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kept_older: bool = False
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # asset -> name -> type

    @property
    def rejected(self) -> int:
        """Return how many rows have no result."""
        return self.rows - self.results

    @property
    def unanswered(self) -> int:
        """Return how many rows nobody has an answer or a final failure for."""
        return self.outcomes[Outcome.NOT_ATTEMPTED] + self.outcomes[Outcome.HELD]

    @property
    def red(self) -> bool:
        """Return whether the partition failed: something in it waits for another run.

        Also where a declaration is wrong: no row was answered and the provider refused requests.
        """
        refused = self.classes["config"] > 0 and not self.outcomes[Outcome.ANSWERED]
        return self.unanswered > 0 or self.kept_older or refused
