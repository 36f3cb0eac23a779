"""How long requests took, counted in classes that never change, so that runs can be compared."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

# upper bounds in milliseconds; up to 81.92 s they are those that OpenTelemetry advises for models
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
BOUNDS_MS = tuple(10 * 2**power for power in range(16))


@dataclass(slots=True)
class Latencies:
    """Counts of requests by class, the last one without a bound; `sum_ms` is that of all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    sum_ms: int = 0

    def add(self, ms: int) -> None:
        """Count a request that took so many milliseconds."""
        self.add_many(bisect_left(BOUNDS_MS, ms), 1, ms)

    def add_many(self, place: int, count: int, sum_ms: int) -> None:
        """Count requests of the class at `place` in `counts`."""
        self.counts[place] += count
        self.sum_ms += sum_ms

    def cumulative(self) -> list[int]:
        """Return how many requests took at most each bound, and how many there were at all."""
        return list(accumulate(self.counts))
