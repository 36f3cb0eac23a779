"""The simulator in a process of its own: a provider with limits, and its bill.

It takes no part in what is measured but for its replies, so it must not share our interpreter.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from ondine_dagster.simulator import ServerLimits, Simulator, Totals

NO_LIMITS = ServerLimits()


@dataclass(frozen=True)
class Stretch:
    """What the bill gained in some seconds."""

    seconds: float
    requests: int
    limited: int
    answered: int
    tokens: int

    @property
    def goodput(self) -> float:
        """Return the answers per second."""
        return self.answered / self.seconds


@dataclass(frozen=True)
class Reading:
    """The bill as it was at a moment, in seconds of the monotonic clock."""

    moment: float
    bill: Totals

    def since(self, earlier: Reading) -> Stretch:
        """Return what the bill gained in between."""
        now, then = self.bill, earlier.bill
        return Stretch(
            seconds=self.moment - earlier.moment,
            requests=now.requests - then.requests,
            limited=now.limited - then.limited,
            answered=now.answered - then.answered,
            tokens=now.prompt_tokens
            + now.completion_tokens
            - then.prompt_tokens
            - then.completion_tokens,
        )


class Provider:
    """A running simulator; its limits may be changed, its bill read at any time."""

    def __init__(self, latency_ms: float = 0, limits: ServerLimits = NO_LIMITS) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, latency_ms, limits), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self.base_url: str = self._pipe.recv()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join()

    def limit(self, limits: ServerLimits) -> None:
        """Replace the limits, for the requests to come."""
        self._pipe.send(limits)
        self._pipe.recv()

    def read(self) -> Reading:
        """Return the sums of the bill as they are now."""
        self._pipe.send(None)
        return Reading(time.monotonic(), self._pipe.recv())


def _serve(pipe: Connection, latency_ms: float, limits: ServerLimits) -> None:
    """Serve until the other end of the pipe is closed. Every message is answered with the bill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: whoever started it ends it
    with Simulator(latency_ms=latency_ms, limits=limits) as simulator:
        pipe.send(simulator.base_url)
        while True:
            try:
                changed = pipe.recv()
            except EOFError:
                return
            if changed is not None:
                simulator.settings = replace(simulator.settings, limits=changed)
            pipe.send(simulator.bill.totals)
