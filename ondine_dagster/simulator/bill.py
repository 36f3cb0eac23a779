"""The bill: what the simulated provider counted and charged.

Owns every counter that a test may compare with a ledger. A request is charged as soon as the
provider has read it whole and did not refuse it, whether or not the client ever sees the answer;
it is answered when a whole reply with status 200 was handed to a connection that still stood.
A request that an outage, its key or a limit keeps from the model is no request for its prompt.
Keys are never kept: they appear as the sha256 of `Bearer KEY`, whichever header they came in. All
methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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

    `refused` counts the requests that got an error and cost nothing, among them the `limited` ones
    that met a limit of the server; `during_outage` the requests that arrived in an outage;
    `repeats` the charges beyond the first of their prompt; `connections` the TCP connections that
    carried a chat request. `looked_up` counts those for models, which are no others.
    """

    requests: int = 0
    charged: int = 0
    answered: int = 0
    refused: int = 0
    looked_up: int = 0
    limited: int = 0
    during_outage: int = 0
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
    """The bill at one instant.

    `authorizations` counts requests, and `spent` sums picodollars, per sha256 of `Bearer KEY`.
    `limited` counts the requests that met a limit by its kind. `seconds` has one entry (second,
    admitted, limited) for each second since the first request in which there was either.
    `outage_times` are the arrivals during outages, in seconds since 1970. `carried` has, for each
    charged request, the rows that it asked about: each one's token, or how its text begins.
    """

    totals: Totals
    prompts: dict[str, PromptBill]
    authorizations: dict[str, int]
    spent: dict[str, int]
    limited: dict[str, int]
    seconds: list[tuple[int, int, int]]
    outage_times: list[float]
    carried: list[tuple[str, ...]]

    @property
    def rows(self) -> Counter[str]:
        """How often each row was charged, under the name that it has in `carried`."""
        return Counter(row for rows in self.carried for row in rows)

    @property
    def repeated(self) -> dict[str, int]:
        """The prompts that were charged more than once, with their extra charges."""
        return {p: line.charged - 1 for p, line in self.prompts.items() if line.charged > 1}

    def to_json(self, with_prompts: bool = True) -> dict[str, Any]:
        """Return the bill as plain JSON values, the prompts left out on request."""
        document: dict[str, Any] = {
            "totals": {**asdict(self.totals), "distinct_prompts": len(self.prompts)},
            "authorizations": self.authorizations,
            "spent": self.spent,
            "limited": self.limited,
            "seconds": self.seconds,
            "outage_times": self.outage_times,
        }
        if with_prompts:
            document["prompts"] = {prompt: asdict(line) for prompt, line in self.prompts.items()}
            document["carried"] = self.carried
        return document


class Bill:
    """The live counters of one simulator; `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._forget(in_flight=0)

    @property
    def totals(self) -> Totals:
        """A copy of the sums as they are now."""
        with self._changed:
            return replace(self._totals)

    def snapshot(self) -> BillSnapshot:
        """Return a copy of everything as it is now."""
        with self._changed:
            prompts = {prompt: replace(line) for prompt, line in self._prompts.items()}
            return BillSnapshot(
                totals=replace(self._totals),
                prompts=prompts,
                authorizations=dict(self._authorizations),
                spent=dict(self._spent),
                limited=dict(self._limited),
                seconds=[(second, n, m) for second, (n, m) in sorted(self._seconds.items())],
                outage_times=list(self._outage_times),
                carried=list(self._carried),
            )

    def reset(self) -> None:
        """Forget everything but the requests that are in flight."""
        with self._changed:
            self._forget(self._totals.in_flight)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[Totals], bool], timeout: float = 60.0) -> bool:
        """Wait until `condition` holds for the totals; return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._totals), timeout)

    def connected(self) -> None:
        """Count a TCP connection that carries its first chat request."""
        with self._changed:
            self._totals.connections += 1

    def arrived(self, sender: str | None) -> int:
        """Count a request whose head has arrived; it is in flight from now on.

        `sender` is the sha256 of its key. Returns which request of the sender it
        is, from 1; 1 where there is no key.
        """
        now = self._clock()
        with self._changed:
            totals = self._totals
            totals.requests += 1
            totals.in_flight += 1
            totals.max_in_flight = max(totals.max_in_flight, totals.in_flight)
            totals.first_at = now if totals.first_at is None else totals.first_at
            totals.last_at = now
            nth = 1
            if sender is not None:
                nth = self._authorizations[sender] = self._authorizations.get(sender, 0) + 1
            self._changed.notify_all()
            return nth

    def left(self) -> None:
        """A request is no longer in flight: replied to, dropped, or given up by its client."""
        with self._changed:
            self._totals.in_flight -= 1
            self._totals.last_at = self._clock()
            self._changed.notify_all()

    def asked(self, prompt: str) -> int:
        """Count an admitted request for `prompt`; return which attempt it is, from 1."""
        with self._changed:
            self._count_second(0)
            line = self._prompts.setdefault(prompt, PromptBill())
            line.requests += 1
            return line.requests

    def refused(self) -> None:
        """Count a request that got an error and is not charged."""
        with self._changed:
            self._totals.refused += 1
            self._changed.notify_all()

    def looked_up(self) -> None:
        """Count a request for the list of models, or for one of them."""
        with self._changed:
            self._totals.looked_up += 1

    def met_limit(self, kind: str) -> None:
        """Count a request that met a limit of the server; it is refused as well."""
        with self._changed:
            self._count_second(1)
            self._totals.limited += 1
            self._limited[kind] = self._limited.get(kind, 0) + 1

    def met_outage(self) -> None:
        """Count a request that arrived during an outage."""
        with self._changed:
            self._totals.during_outage += 1
            self._outage_times.append(self._clock())

    def charge(
        self,
        prompt: str,
        sender: str | None,
        picodollars: int,
        prompt_tokens: int,
        completion_tokens: int,
        rows: tuple[str, ...] = (),
    ) -> None:
        """Charge a request for `prompt`, which asks about `rows`, to the account of its sender."""
        with self._changed:
            line = self._prompts.setdefault(prompt, PromptBill())
            self._carried.append(rows)
            line.charged += 1
            line.picodollars += picodollars
            totals = self._totals
            totals.charged += 1
            totals.repeats += line.charged > 1
            totals.picodollars += picodollars
            totals.prompt_tokens += prompt_tokens
            totals.completion_tokens += completion_tokens
            if sender is not None:
                self._spent[sender] = self._spent.get(sender, 0) + picodollars
            self._changed.notify_all()

    def spent_by(self, sender: str | None) -> int:
        """Return the picodollars that were charged to a sender."""
        with self._changed:
            return self._spent.get(sender or "", 0)

    def answered(self, prompt: str) -> None:
        """Count a whole reply with status 200 to a request for `prompt`."""
        with self._changed:
            self._prompts.setdefault(prompt, PromptBill()).answered += 1
            self._totals.answered += 1
            self._changed.notify_all()

    def _forget(self, in_flight: int) -> None:
        self._totals = Totals(in_flight=in_flight, max_in_flight=in_flight)
        self._prompts: dict[str, PromptBill] = {}
        self._authorizations: dict[str, int] = {}
        self._spent: dict[str, int] = {}
        self._limited: dict[str, int] = {}
        self._seconds: dict[int, list[int]] = {}
        self._outage_times: list[float] = []
        self._carried: list[tuple[str, ...]] = []

    def _count_second(self, position: int) -> None:
        """Count an admitted (0) or a limited (1) request in the current second."""
        now = self._clock()
        second = int(now - (now if self._totals.first_at is None else self._totals.first_at))
        self._seconds.setdefault(second, [0, 0])[position] += 1
