"""Numbers of a run while it goes on. Written by the engine's loop, read by anybody."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from ondine_dagster.engine.latencies import Latencies
from ondine_dagster.engine.rows import Outcome, RowOutcome


@dataclass(slots=True)
class Progress:
    """Counts since the run began; money in picodollars."""

    reused: int = 0
    requests: int = 0
    asked: int = 0  # questions that the requests carried, each as often as it was asked
    repaired: int = 0  # of these, because their part of a pack's answer was damaged
    in_flight: int = 0
    retries: int = 0
    cost: int = 0
    unknown_cost: int = 0
    reserved: int = 0  # what the requests in flight may cost at most
    prompt_tokens: int = 0
    completion_tokens: int = 0
    held_up: str | None = None  # why nothing is sent right now, in words for a person
    short_of_money: int = 0  # requests that a budget has no room for at the moment
    keeping_to: str | None = None  # the declared rates, while requests wait for them
    paused_seconds: float = 0  # in which nothing was sent: `held_up`
    throttled_seconds: float = 0  # in which requests waited for the declared rates
    questions_per_row: int = 1
    latencies: Latencies = field(default_factory=Latencies)  # of requests that were paid
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    warnings: deque[str] = field(default_factory=deque)  # for whoever logs; taken from the left

    @property
    def done(self) -> int:
        """Return how many rows have an outcome."""
        return self.outcomes.total() // self.questions_per_row

    @property
    def waiting_for(self) -> str | None:
        """Return what holds requests back right now, in words for a person."""
        if self.held_up is None and self.short_of_money:
            return f"{self.short_of_money} requests wait for money that others have set aside"
        return self.held_up or self.keeping_to

    def sent(self, reserved: int, questions: int, *, repairing: bool) -> None:
        """Count a request that is about to leave."""
        self.requests += 1
        self.asked += questions
        self.repaired += questions * repairing
        self.in_flight += 1
        self.reserved += reserved

    def count(self, outcome: RowOutcome) -> None:
        """Count the end of a row."""
        self.outcomes[outcome.outcome] += 1
        if outcome.cost_source == "reused":
            self.reused += 1
        else:
            self.prompt_tokens += outcome.usage.prompt_tokens or 0
            self.completion_tokens += outcome.usage.completion_tokens or 0
        self.retries += max(0, outcome.requests - 1)
        self.cost += outcome.cost
        self.unknown_cost += outcome.unknown_cost
