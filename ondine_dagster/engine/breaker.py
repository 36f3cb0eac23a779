"""The shared breaker as one engine sees it: since when the provider is out, and who tries it next.

The row in the ledger decides (`ledger/provider_state.py`); here are this engine's own part in it
and the instants on its own clock, which nobody can set back.
"""

from __future__ import annotations

from ondine_dagster.ledger.provider_state import LONGEST_WAIT_MS, ProviderState


class Breaker:
    """Whether anything may be sent, and the probes of this engine. Belongs to one event loop."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._state = ProviderState()
        self._since = started
        self._retry_at = started
        self._probing_from: float | None = None
        self._probes = 0  # handed out and not ended yet
        self.won = False  # a probe that waits for a request
        self._back = False  # a probe was answered, and the row does not say so yet

    @property
    def open(self) -> bool:
        """Return whether nothing may be sent but probes."""
        return self._state.opened_at is not None

    @property
    def trying(self) -> bool:
        """Return whether this engine may be about to find out that the provider is back."""
        return self.won or self._back or self._probes > 0

    def learn(self, state: ProviderState, now_ms: int, now: float) -> None:
        """Take in the row as it is now."""
        before, self._state = self._state, state
        if state.opened_at is None:
            self._probing_from, self._probes, self.won, self._back = None, 0, False, False
            return
        if state.opened_at != before.opened_at:
            # an outage that was there before this engine is waited for from its start
            age = max(0, now_ms - state.opened_at) / 1000
            self._since = max(self._started, now - age)
        if state.open_until is not None and state.open_until != before.open_until:
            self._retry_at = now + seconds_until(state.open_until, now_ms)

    def cooling_for(self, now: float) -> float:
        """Return in how many seconds the next probe may be sent."""
        return max(0.0, self._retry_at - now)

    def out_for(self, now: float) -> float:
        """Return how many seconds this engine has seen the provider out."""
        return now - self._since

    def win(self) -> None:
        """The next request of this engine is the probe of this cool-down."""
        self.won = self.open

    def probe(self, now: float) -> None:
        """The probe that this engine won is about to be sent."""
        self.won = False
        self._probes += 1
        if self._probing_from is None:
            self._probing_from = now

    def ends_probe(self, sent: float, *, good: bool) -> bool:
        """Return whether a request that was sent then was a probe, which has ended now."""
        if self._probing_from is None or sent < self._probing_from:
            return False
        self._probes = max(0, self._probes - 1)
        self._back |= good
        return True

    def nothing_in_flight(self) -> None:
        """A probe that was not sent after all is for the next request."""
        if self._probes:
            self._probes = 0
            self.won = True


def seconds_until(moment_ms: int, now_ms: int) -> float:
    """Return the wait until a shared instant; never long, whatever was done to the clock."""
    return min(LONGEST_WAIT_MS, max(0, moment_ms - now_ms)) / 1000
