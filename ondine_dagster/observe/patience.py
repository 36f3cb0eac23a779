"""How long the end of a run waits for a trace host: a slow one for seconds, a quick one for longer.

What a host answers at once is not waited for, so it does not count. A run that ends with all of its
requests still to be sent may send them, as long as that takes no longer than the run did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ondine_dagster.observe.otlp import Answer, Delivered
from ondine_dagster.observe.push import Exporter
from ondine_dagster.observe.spans import Span

# a post that takes no longer is not waited for; there are no more than some hundred spans in it
_QUICK_SECONDS = 0.5


class Patience:
    """Seconds that are left: `seconds` of waiting for a slow host, `most` in all."""

    def __init__(
        self, seconds: float, most: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._since = now = clock()
        self._until = now + seconds
        self._end = now + max(seconds, most)

    def __call__(self) -> float:
        """Return how many are left; from any thread."""
        return min(self._until, self._end) - self._clock()

    def answered(self, answer: Answer, seconds: float) -> None:
        """Take note of a post and how long it took: where that was little, it costs nothing."""
        now = self._clock()
        if isinstance(answer, Delivered) and seconds < _QUICK_SECONDS:
            self._until += now - self._since
        self._since = now


class Watched:
    """An exporter whose posts are told to whoever waits for them."""

    def __init__(self, exporter: Exporter, told: Callable[[Answer, float], None]) -> None:
        self._exporter = exporter
        self._told = told

    def post(self, spans: Sequence[Span], seconds: float) -> Answer:
        """Send spans; return what became of them."""
        began = time.monotonic()
        answer = self._exporter.post(spans, seconds)
        self._told(answer, time.monotonic() - began)
        return answer
