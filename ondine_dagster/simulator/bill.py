"""The bill: what the simulated provider counted and charged.

Owns every counter that a test may compare with a ledger. A request is charged as soon as the
provider has read it whole and did not refuse it, whether or not the client ever sees the answer;
it is answered when a whole reply with status 200 was handed to a connection that still stood.
Keys are never kept: authorization headers appear as sha256 only. All methods may be called from
any thread.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(slots=True)
class PromptBill:
    """What happened to one prompt. Money in picodollars."""

    requests: int = 0
    charged: int = 0
    answered: int = 0
    picodollars: int = 0


@dataclass(slots=True)
class Totals:
    """Sums over all prompts. Money in picodollars, times in seconds since 1970.

    `refused` counts the requests that got an error and cost nothing; `repeats` the charges beyond
    the first of their prompt; `connections` the TCP connections that carried a chat request.
    """

    requests: int = 0
    charged: int = 0
    answered: int = 0
    refused: int = 0
    repeats: int = 0
    picodollars: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    first_at: float | None = None
    last_at: float | None = None


@dataclass(frozen=True, slots=True)
class BillSnapshot:
    """The bill at one instant. `authorizations` counts requests per sha256 of the header value."""

    totals: Totals
    prompts: dict[str, PromptBill]
    authorizations: dict[str, int] = field(default_factory=dict)

    @property
    def repeated(self) -> dict[str, int]:
        """The prompts that were charged more than once, with their extra charges."""
        return {p: line.charged - 1 for p, line in self.prompts.items() if line.charged > 1}

    def to_json(self, with_prompts: bool = True) -> dict[str, Any]:
        """Return the bill as plain JSON values, the prompts left out on request."""
        document: dict[str, Any] = {
            "totals": {**asdict(self.totals), "distinct_prompts": len(self.prompts)},
            "authorizations": self.authorizations,
        }
        if with_prompts:
            document["prompts"] = {prompt: asdict(line) for prompt, line in self.prompts.items()}
        return document


class Bill:
    """The live counters of one simulator."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._totals = Totals()
        self._prompts: dict[str, PromptBill] = {}
        self._authorizations: dict[str, int] = {}

    @property
    def totals(self) -> Totals:
        """A copy of the sums as they are now."""
        with self._changed:
            return replace(self._totals)

    def snapshot(self) -> BillSnapshot:
        """Return a copy of everything as it is now."""
        with self._changed:
            prompts = {prompt: replace(line) for prompt, line in self._prompts.items()}
            return BillSnapshot(replace(self._totals), prompts, dict(self._authorizations))

    def reset(self) -> None:
        """Forget everything but the requests that are in flight."""
        with self._changed:
            now = self._totals.in_flight
            self._totals = Totals(in_flight=now, max_in_flight=now)
            self._prompts = {}
            self._authorizations = {}
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[Totals], bool], timeout: float = 10.0) -> bool:
        """Wait until `condition` holds for the totals; return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._totals), timeout)

    def connected(self) -> None:
        """Count a TCP connection that carries its first chat request."""
        with self._changed:
            self._totals.connections += 1

    def arrived(self, authorization: bytes | None) -> None:
        """Count a request whose head has arrived; it is in flight from now on."""
        now = time.time()
        with self._changed:
            totals = self._totals
            totals.requests += 1
            totals.in_flight += 1
            totals.max_in_flight = max(totals.max_in_flight, totals.in_flight)
            totals.first_at = now if totals.first_at is None else totals.first_at
            totals.last_at = now
            if authorization is not None:
                seen = hashlib.sha256(authorization).hexdigest()
                self._authorizations[seen] = self._authorizations.get(seen, 0) + 1
            self._changed.notify_all()

    def left(self) -> None:
        """A request is no longer in flight: replied to, dropped, or given up by its client."""
        with self._changed:
            self._totals.in_flight -= 1
            self._totals.last_at = time.time()
            self._changed.notify_all()

    def asked(self, prompt: str) -> int:
        """Count a request for `prompt`; return which attempt it is, from 1."""
        with self._changed:
            line = self._prompts.setdefault(prompt, PromptBill())
            line.requests += 1
            return line.requests

    def refused(self) -> None:
        """Count a request that got an error and is not charged."""
        with self._changed:
            self._totals.refused += 1
            self._changed.notify_all()

    def charge(
        self, prompt: str, picodollars: int, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Charge one request for `prompt`."""
        with self._changed:
            line = self._prompts.setdefault(prompt, PromptBill())
            line.charged += 1
            line.picodollars += picodollars
            totals = self._totals
            totals.charged += 1
            totals.repeats += line.charged > 1
            totals.picodollars += picodollars
            totals.prompt_tokens += prompt_tokens
            totals.completion_tokens += completion_tokens
            self._changed.notify_all()

    def answered(self, prompt: str) -> None:
        """Count a whole reply with status 200 to a request for `prompt`."""
        with self._changed:
            self._prompts.setdefault(prompt, PromptBill()).answered += 1
            self._totals.answered += 1
            self._changed.notify_all()
