"""Who is slow, raises or hangs harms nobody but himself, and it is known what he missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ondine_dagster.observe.relay import Relay


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """Return what a receiver waits for; it is set at the end."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_everything_arrives_in_order() -> None:
    seen: list[int] = []
    relay = Relay[int](seen.append, "test")
    for number in range(5000):
        relay.put(number)
    lost = relay.close(30)
    assert seen == list(range(5000))
    assert (lost.dropped, lost.left, lost.errors) == (0, 0, 0)


@pytest.mark.behaviour("A-25")
def test_who_hangs_is_left_behind_and_gets_nothing_later(blocked: threading.Event) -> None:
    seen: list[int] = []

    def deliver(number: int) -> None:
        blocked.wait()
        seen.append(number)

    relay = Relay[int](deliver, "test", most=10)
    for number in range(100):  # would never end if `put` waited
        relay.put(number)
    lost = relay.close(0.05)
    assert lost.dropped + lost.left == 100
    assert lost.dropped >= 89
    blocked.set()
    relay.close(30)  # its thread has ended
    assert len(seen) <= 1


def test_who_raises_gets_the_others_and_the_first_error_is_kept() -> None:
    seen: list[int] = []

    def deliver(number: int) -> None:
        if number % 2:
            raise ValueError(number)
        seen.append(number)

    relay = Relay[int](deliver, "test")
    for number in range(10):
        relay.put(number)
    lost = relay.close(30)
    assert seen == [0, 2, 4, 6, 8]
    assert lost.errors == 5
    assert str(lost.error) == "1"
