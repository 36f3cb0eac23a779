"""How long a run waits for a trace host at its end, by a clock that the tests turn."""

from __future__ import annotations

from ondine_dagster.observe.otlp import Answer, Delivered, Unavailable
from ondine_dagster.observe.patience import Patience


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _after(
    posts: int, seconds: float, most: float, answer: Answer | None = None, work: float = 0.0
) -> float:
    """Return what is left of 5 seconds after posts that each took so long."""
    clock = _Clock()
    patience = Patience(5.0, most, clock)
    for _ in range(posts):
        clock.now += work + seconds
        patience.answered(answer or Delivered(), seconds)
    return patience()


def test_a_quick_host_costs_no_patience() -> None:
    assert _after(40, 0.1, most=100.0, work=0.4) == 5.0


def test_a_slow_host_costs_it_soon() -> None:
    assert _after(4, 1.0, most=100.0) == 1.0
    assert _after(6, 1.0, most=100.0) < 0


def test_a_host_that_takes_nothing_is_not_quick() -> None:
    assert _after(6, 0.1, most=100.0, answer=Unavailable("answers 500"), work=0.9) < 0


def test_a_quick_host_does_not_hold_a_run_for_longer_than_it_took() -> None:
    """What had waited before may be much more than what the run has asked."""
    assert _after(40, 0.1, most=30.0, work=0.4) == 5.0
    assert _after(60, 0.1, most=30.0, work=0.4) == 0.0
    assert _after(8, 0.1, most=2.0, work=0.4) == 1.0, "5 s in any case"
