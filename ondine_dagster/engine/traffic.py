"""When a request may be sent: permits under the ceiling that all processes share, pause, breaker.

The provider's row in the ledger is the truth (`ledger/provider_state.py`). An engine reads it twice
a second and reports what others have to know in batches; while all is well it writes nothing, and
a permit costs neither a wait nor a look at the ledger.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from ondine_dagster.engine.breaker import Breaker, seconds_until
from ondine_dagster.engine.permits import Permits
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.ledger import provider_state
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.provider_seat import Seat, View
from ondine_dagster.ledger.provider_state import (
    FAILED,
    FIRST_COOLDOWN_MS,
    GOOD,
    IN_A_ROW,
    LONGEST_WAIT_MS,
    ProviderState,
    Refusals,
    Report,
)
from ondine_dagster.ledger.records import ProviderKey
from ondine_dagster.llm.errors import STOPS, ErrorCode, Evidence, Failure

TICK_SECONDS = 0.05
_GOOD_SECONDS, _CROWDED_SECONDS, _READ_SECONDS, _REAP_SECONDS = 0.1, 0.1, 0.5, 2.0
_TURN_MS = 10_000
# a refusal now and then, whatever we send, says nothing about how much the provider takes: it
# counts once a tenth of the last requests (of those in flight, and of so many) were refused
_RECENT_REQUESTS, _NOTICED_SHARE = 50, 0.1
_JITTER = 0.1
# a wrong address: after so many probes nobody has to wait for a provider that never was there
_HOPELESS_PROBES = 3
_HOPELESS_COOLDOWN_MS = FIRST_COOLDOWN_MS * 2**_HOPELESS_PROBES  # by all engines together


class Traffic:
    """The requests of one engine among those of all processes. Belongs to one event loop."""

    def __init__(
        self,
        ledger: Ledger,
        key: ProviderKey,
        *,
        concurrency: int,
        max_outage_seconds: float,
        stop: StopSign,
        progress: Progress,
        monotonic: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`max_outage_seconds`: after so long without an answer the run stops; 0: at once."""
        self._key = key
        self._concurrency = concurrency
        self._max_outage = max_outage_seconds
        self._stop = stop
        self._progress = progress
        self._monotonic = monotonic
        self._clock_ms = clock_ms
        self._seat = Seat(ledger, key, concurrency, clock_ms)
        self._violated_at: int | None = None  # when the provider last did so before we began
        self._permits = Permits(concurrency)
        self._breaker = Breaker(monotonic())
        self._state = ProviderState()
        self._wishes: dict[bytes, int] = {}
        self._elsewhere = 0
        self._crowded = False
        self._report = Report()
        self._told_at = self._heard_at = self._reaped_at = self._ticked_at = monotonic()
        self._resume_at = -math.inf
        # refusals: the last one, how many were in flight together, and what follows from it until
        # the ledger knows
        self._refused_share = 0.0  # a moving average
        self._passed_over = 0.0  # refusals that were too few to be noticed, lately
        self._refused_at = -math.inf
        self._burst = 0
        self._cut: int | None = None
        # failures in a row that the ledger has not heard of: once they are enough to open the
        # breaker, nothing is sent until it has
        self._in_a_row = 0
        self._reached = False  # something has answered at the address, if only an error
        self._failed_probes = 0
        self._last_failure: Failure | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._talking: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def start(self) -> None:
        """Join those that ask this provider. Sets the stop sign where there is no use in asking."""
        view = await asyncio.to_thread(self._seat.join)
        self._violated_at = view.state.violated_at
        self._learn(view)
        self._ticker = asyncio.create_task(self._tick_for_ever())
        self._stop.when_set(self._permits.dismiss)

    async def aclose(self) -> None:
        """Report what is left and leave. Raises what went wrong unseen."""
        if self._ticker is None:
            return
        self._ticker.cancel()
        await asyncio.wait({self._ticker, *filter(None, [self._talking])})
        self._progress.held_up = None
        with suppress(LedgerUnavailable):  # gone from the list when this process is
            await asyncio.to_thread(self._seat.leave, self._report)
        if self._error is not None:
            raise self._error

    @property
    def is_out(self) -> bool:
        """Return whether the provider counts as out now: a row that fails then is not to blame."""
        return self._breaker.open

    async def enter(self) -> bool:
        """Return True with a permit, which `leave` gives back; False when the stop sign is set."""
        if self._error is None and not self._stop.is_set() and await self._permits.take():
            return True
        if self._error is not None:
            raise self._error
        return False

    def leave(self) -> None:
        """Give a permit back."""
        self._permits.give_back()
        if not self._permits.held:
            self._breaker.nothing_in_flight()

    def answered(self, started: float) -> None:
        """A reply came, whatever it says, to the request that was sent at `started`."""
        self._reached, self._in_a_row = True, 0
        older = 1 - self._weight()
        self._refused_share *= older
        self._passed_over *= older
        if self._breaker.ends_probe(started, good=True):
            self._report.probe = True
            return
        self._report.outcomes.append(GOOD)
        if self._state.ceiling is not None:
            self._report.good += 1

    def failed(self, failure: Failure, started: float) -> None:
        """The request that was sent at `started` met a failure of the provider (or its network)."""
        self._last_failure = failure
        self._reached |= failure.code is not ErrorCode.CONNECT_FAILED
        report, wait = self._report, failure.retry_after
        report.wait_ms = max(report.wait_ms, _milliseconds(wait or 0.0))
        if failure.code is ErrorCode.OVERLOADED and wait:
            self.pause(wait)
        if self._breaker.ends_probe(started, good=False):
            report.probe = bool(report.probe)
            self._failed_probes += 1
            if not self._reached and self._hopeless():
                self._stop.set(failure)
        elif failure.code is ErrorCode.RATE_LIMITED:
            self._refused(wait, started)
        else:
            report.outcomes.append(FAILED)
            self._in_a_row += 1
            self._move()

    def _hopeless(self) -> bool:
        by_all = (self._state.cooldown_ms or 0) >= _HOPELESS_COOLDOWN_MS
        return by_all or self._failed_probes >= _HOPELESS_PROBES

    def pause(self, seconds: float) -> None:
        """Hold all sends of all processes."""
        if self._monotonic() + seconds <= self._resume_at:
            return
        wait_ms = min(LONGEST_WAIT_MS, _milliseconds(seconds))
        self._report.pause_ms = max(self._report.pause_ms, wait_ms)
        self._hold(wait_ms / 1000)
        self._move()

    def violated(self) -> None:
        """The provider billed more than was reserved: all engines that have started shall stop."""
        self._report.violated = True

    # what this engine sees

    def _refused(self, wait: float | None, started: float) -> None:
        """React at once; the ledger makes a share of all in flight of it.

        Requests that were sent together are refused together: each refusal says that one less of
        them was taken. (What is in flight when the last one arrives may be less than the provider
        takes, where answers came in between.)
        """
        now, held = self._monotonic(), self._permits.held
        weight = self._weight()
        self._refused_share += (1 - self._refused_share) * weight
        if self._refused_share < _NOTICED_SHARE:
            self._passed_over += 1
            return
        if started > self._refused_at:  # what was passed over was too many as well
            self._burst = max(1, held - round(self._passed_over * held * weight))
        else:
            self._burst = max(1, self._burst - 1)
        self._refused_at, self._passed_over = now, 0.0
        self._cut = max(1, self._burst * 9 // 10)
        self._move()
        sent_at = self._clock_ms() - _milliseconds(now - started)
        known = self._report.refusals
        wait_ms = None if wait is None else _milliseconds(wait)
        if known is not None:
            sent_at = max(sent_at, known.sent_at)
            wait_ms = max((w for w in (wait_ms, known.wait_ms) if w is not None), default=None)
        self._report.refusals = Refusals(self._burst, sent_at, wait_ms)

    def _weight(self) -> float:
        """Return the weight of one request in what is known of the last ones."""
        return 1 / max(_RECENT_REQUESTS, self._permits.held)

    def _hold(self, seconds: float) -> None:
        """Jitter: processes that pause together must not come back together."""
        longer = seconds * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311 (no secret)
        self._resume_at = max(self._resume_at, self._monotonic() + longer)

    # what all see

    def _learn(self, view: View) -> None:
        before, state, now = self._state, view.state, self._monotonic()
        self._state, self._wishes, self._elsewhere = state, view.wishes, view.elsewhere
        self._heard_at = now
        if self._report.refusals is None:
            self._cut = None
        if FAILED not in self._report.outcomes:
            self._in_a_row = 0
        if state.paused_until is not None and state.paused_until != before.paused_until:
            left = seconds_until(state.paused_until, self._clock_ms())
            if left:
                self._hold(left)
        self._breaker.learn(state, self._clock_ms(), now)
        if view.won:
            self._breaker.win()
        if state.violated_at != self._violated_at:
            self._stop_for(ErrorCode.BOUND_VIOLATED, self._violation())
        self._check_outage(now)
        self._move()

    def _move(self) -> None:
        """Let go whoever may go by what is known now."""
        permits, state, now = self._permits, self._state, self._monotonic()
        limit, self._crowded = self._concurrency, False
        if state.ceiling is not None:
            turn = self._clock_ms() // _TURN_MS
            limit = provider_state.share(state.ceiling, self._wishes, self._seat.id, turn)
            # others may still have more than their share in flight: wait until they have not
            room = max(0, state.ceiling - self._elsewhere)
            self._crowded = room < limit
            limit = min(limit, room)
        permits.limit = limit if self._cut is None else min(limit, self._cut)
        paused = now < self._resume_at
        permits.closed = paused or self._breaker.open or self._in_a_row >= IN_A_ROW
        if not paused and self._breaker.won and permits.hand_one():
            self._breaker.probe(now)
        permits.hand_over()

    def _check_outage(self, now: float) -> None:
        breaker = self._breaker
        if not breaker.open or breaker.trying or breaker.out_for(now) < self._max_outage:
            return
        if breaker.cooling_for(now) or now < self._resume_at:  # else: try before giving up
            self._stop_for(ErrorCode.BREAKER_OPEN, self._outage())

    def _stop_for(self, code: ErrorCode, message: str) -> None:
        self._stop.set(Failure(STOPS[code], code, message, Evidence.NOT_SENT))

    # talking to the ledger

    async def _tick_for_ever(self) -> None:
        try:
            while True:
                self._tick(self._monotonic())
                await asyncio.sleep(TICK_SECONDS)
        except Exception as error:  # noqa: BLE001 (raised by enter or aclose, with its type)
            self._fail(error)

    def _tick(self, now: float) -> None:
        self._check_outage(now)
        self._move()
        if (reason := self._reason_to_wait(now)) is not None:
            self._progress.paused_seconds += now - self._ticked_at
        self._progress.held_up, self._ticked_at = reason, now
        if self._talking is None and (work := self._due(now)) is not None:
            self._talking = asyncio.create_task(self._talk(work))

    def _due(self, now: float) -> Callable[[], View] | None:
        """Return what to do with the ledger now; one thing at a time."""
        if self._error is not None:
            return None
        report, breaker = self._report, self._breaker
        if report.urgent or (report.good and now - self._told_at >= _GOOD_SECONDS):
            self._report, self._told_at = Report(), now
            return partial(self._seat.tell, report)
        held_back = now < self._resume_at or breaker.cooling_for(now) > 0
        if breaker.open and self._permits.wanted and not breaker.won and not held_back:
            return partial(self._seat.try_to_win, self._state)
        if now - self._heard_at < (_CROWDED_SECONDS if self._crowded else _READ_SECONDS):
            return None
        reap = len(self._wishes) > 1 and now - self._reaped_at >= _REAP_SECONDS
        self._reaped_at = now if reap else self._reaped_at
        return partial(self._seat.look, reap=reap)

    async def _talk(self, work: Callable[[], View]) -> None:
        try:
            self._learn(await asyncio.to_thread(work))
        except Exception as error:  # noqa: BLE001 (raised by enter or aclose, with its type)
            self._fail(error)
        finally:
            self._talking = None

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._permits.dismiss()

    # in words

    def _reason_to_wait(self, now: float) -> str | None:
        if self._stop.is_set():
            return None
        if self._breaker.open:
            left = math.ceil(self._breaker.cooling_for(now))
            trying = self._breaker.trying or not left
            return f"the provider is down, {'trying it now' if trying else f'next try in {left} s'}"
        if now < self._resume_at:
            return f"paused for {math.ceil(self._resume_at - now)} s, as the provider asked"
        return None

    def _outage(self) -> str:
        state = self._state
        since = datetime.fromtimestamp((state.opened_at or 0) / 1000, UTC)
        recent = state.recent or ""
        last = self._last_failure.message.rstrip(".") if self._last_failure else "not seen here"
        return (
            f"{self._key.endpoint} ({self._key.model_family}) has been down since "
            f"{since:%H:%M:%S} UTC: {recent.count(FAILED)} of the last {len(recent)} requests "
            f"failed, the last one: {last}. The next run asks the rest"
        )

    def _violation(self) -> str:
        return (
            f"{self._key.endpoint} billed more for a request to {self._key.model_family} than can "
            "have been reserved, so no budget is kept there. Compare llm.prices and "
            "llm.max_tokens with the provider's bill, then run again"
        )


def _milliseconds(seconds: float) -> int:
    """Return whole milliseconds; no wait is longer than a day."""
    return round(1000 * min(seconds, 86_400.0))
