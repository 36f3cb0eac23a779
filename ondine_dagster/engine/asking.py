"""Asks a pack of questions: permit, rate slot, reserve, send, settle; again where that may help.

Owns the order of steps that keeps the money right. Nothing is sent before its reservation is
durable, nothing is handed on before its settlement is. A permit is held from before the rate slot
until after the settlement, and never while backing off or waiting for money. Most packs are one
question; several go the same way together, and only what a single one brings is told apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from ondine_dagster.engine.budget_queue import BudgetQueue
from ondine_dagster.engine.job import Pack, longer_or_cut
from ondine_dagster.engine.keys import ApiKey, KeyRing, benches
from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.reasking import WhyAgain, better_one, better_or_first
from ondine_dagster.engine.refusals import Refusals
from ondine_dagster.engine.request import Request, Requests
from ondine_dagster.engine.retry import deferred, may_repeat, retrying
from ondine_dagster.engine.rows import Outcome, Question, RowOutcome, failed, stored
from ondine_dagster.engine.sending import Sender
from ondine_dagster.engine.settlements import held
from ondine_dagster.engine.stop import StopSign, budget_used_up
from ondine_dagster.engine.traffic import Traffic
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import (
    Ask,
    AttemptKind,
    Broke,
    Decision,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.llm.context import too_long
from ondine_dagster.llm.errors import STOPS, ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.provider import Provider

# a reservation that took longer is given back unsent: it may have been reaped meanwhile
_SEND_WITHIN_SECONDS = 10.0


class _Again(Enum):
    """Why a pack is tried once more without counting it as an attempt that failed."""

    NO_ROOM = "wait for money"
    AT_ONCE = "another key, a reservation that came too late, a provider that is out since"


# None: nothing is left to be asked, or repeated, of the pack
_Result = Failure | None


class Asker:
    """Asks questions of one provider for one run. Belongs to one event loop."""

    def __init__(
        self,
        ledger: LedgerClient,
        sender: Sender,
        provider: Provider,
        context: RequestContext,
        *,
        traffic: Traffic,
        pacer: Pacer,
        keys: KeyRing,
        budget: BudgetQueue,
        requests: Requests,
        max_attempts: int,
        stop: StopSign,
        progress: Progress,
        why_again: WhyAgain | None = None,
    ) -> None:
        """`max_attempts` bounds the requests per question of this run.

        `why_again` says why an answer is asked for once more, None where it is not.
        """
        self._ledger = ledger
        self._sender = sender
        self._provider = provider
        self._context = context
        self._raised = (
            replace(context, ceiling=provider.raised_ceiling) if provider.raised_ceiling else None
        )
        self._traffic = traffic
        self._pacer = pacer
        self._keys = keys
        self._budget = budget
        self._requests = requests
        self._max_attempts = max_attempts
        self._stop = stop
        self._progress = progress
        self._why_again = why_again
        # says whether rows wait that were never asked; they try a provider that is out
        self.others_wait: Callable[[], bool] = lambda: False
        # hears of each question whose first request has failed, or that another run is asking
        self.delayed: Callable[[], None] = lambda: None
        self.refusals = Refusals(provider.url)
        self._window: int | None = None
        # requests that are reserved and whose end is not in the ledger yet
        self.in_flight: set[bytes] = set()

    def know_window(self, tokens: int | None) -> None:
        """Take in how many tokens fit into the model, None where nobody knows."""
        self._window = tokens
        if self._sender.sizes is not None:
            self._sender.sizes.window = tokens

    async def ask(self, pack: Pack) -> None:
        """Ask the questions of `pack`, which says what became of each: none is left in its jobs."""
        self._refuse_too_long(pack)
        await self._ask_and_repeat(pack)
        if self._raised is not None:
            await self._raise_ceiling(pack)
        if self._why_again is not None:
            await self._ask_rejected_again(pack, self._why_again)
        pack.ended = [(job, job.charged(outcome)) for job, outcome in pack.ended]

    def _too_long(self, question: Question) -> Failure | None:
        if self._window is None:
            return None
        return too_long(question.messages, self._window, self._provider.model)

    def _refuse_too_long(self, pack: Pack) -> None:
        for job in tuple(pack.jobs):
            if (failure := self._too_long(job.question)) is not None:
                pack.end(job, failed(Outcome.ERROR, failure))

    async def _raise_ceiling(self, pack: Pack) -> None:
        """Ask questions whose answers were cut off once more, under the raised ceiling."""
        for index, (job, cut) in reversed(list(enumerate(pack.ended))):
            if cut.code is not ErrorCode.TRUNCATED or job.raised:
                continue
            job.raised = True
            job.note("raised", message="asked again under the raised ceiling")
            alone = Pack([job])
            await self._ask_and_repeat(alone)
            if alone.ended:
                pack.ended[index] = job, longer_or_cut(cut, alone.ended[0][1])
            else:
                del pack.ended[index]
                pack.taken.append(job)

    async def _ask_rejected_again(self, pack: Pack, why: WhyAgain) -> None:
        """Tell the model once what is wrong with an answer that this run has paid for."""
        for index, (job, outcome) in enumerate(pack.ended):
            asked = None if job.reasked else better_one(job.question, outcome, why)
            if asked is None or self._stop.is_set() or self._too_long(asked):
                continue
            job.note("reasked", message="its answer was rejected: asked again with the reason")
            job.reasked, job.question = True, asked
            alone = Pack([job], "reask")
            await self._ask_and_repeat(alone)
            again = alone.ended[0][1] if alone.ended else None
            pack.ended[index] = job, better_or_first(outcome, again)

    async def _ask_and_repeat(self, pack: Pack) -> None:
        result = await self._attempt(pack)
        if may_repeat(result):
            for _ in pack.jobs:
                self.delayed()
            result = await self._repeat(pack, result)
        if result is not None:
            self._give_up(pack, result)

    async def _repeat(self, pack: Pack, first: _Result) -> _Result:
        """Ask again with pauses. A row that never failed does without the loop's CPU."""
        known = [first]

        async def attempt() -> _Result:
            return known.pop() if known else await self._attempt(pack)

        retry = retrying(lambda: self._used_up(pack), self._stop.sleep)
        result: _Result = await retry(attempt)
        return result

    def _used_up(self, pack: Pack) -> bool:
        if pack.too_slow:
            return True
        return any(job.attempts - job.extras >= self._max_attempts for job in pack.jobs)

    def not_attempted(self) -> RowOutcome:
        """Return the end of a row that the run stopped before."""
        reason = self._stop.reason
        assert reason is not None
        code = reason.code if reason.code in STOPS else ErrorCode.STOPPED
        return replace(failed(Outcome.NOT_ATTEMPTED, reason), code=code)

    async def _attempt(self, pack: Pack) -> _Result:
        """Try once, as often as it takes to get a permit, money and a key that works."""
        waited = bool(self._budget)
        if waited and pack.jobs:
            await self._budget.wait(again=False)
        while pack.jobs:
            unknown = any(job.unknown_cost for job in pack.jobs)
            if unknown and self._traffic.is_out and self.others_wait():
                pack.leave()  # one more outcome that nobody knows might end it
                return None
            if self._stop.is_set() or not await self._traffic.enter():
                pack.end_all(self.not_attempted())
                return None
            try:
                result = await self._with_permit(pack)
            finally:
                self._traffic.leave()
            if result is _Again.NO_ROOM:
                await self._budget.wait(again=waited)
                waited = True
            elif result is not _Again.AT_ONCE:
                if waited:
                    self._budget.found_room()
                return result
        return None

    async def _with_permit(self, pack: Pack) -> _Result | _Again:
        key = self._keys.take()
        if key is None:  # the last one was set aside, and the run is stopping
            pack.end_all(self.not_attempted())
            return None
        context = (self._raised if pack.jobs[0].raised else None) or self._context
        request = await self._requests.of(pack.jobs, context.ceiling)
        if isinstance(request, Failure):  # not the row's fault: the next run renders it anew
            pack.end_all(failed(Outcome.NOT_ATTEMPTED, request))
            return None
        count, trying = len(pack.jobs), self._traffic.is_out
        weight = self._sender.weight.of(request.body.weight, count)
        if (capped := await self._pacer.slot(weight)) is not None:
            self._stop.set(capped)
        if capped is not None or self._too_late():
            pack.end_all(self.not_attempted())
            return None
        if self._traffic.is_out and not trying:  # since the permit was given
            self._pacer.give_back(weight)
            return _Again.AT_ONCE
        reservation = self._reservation(pack, context, request, key)
        asked = time.monotonic()
        decision = await self._ledger.reserve(reservation)
        self._drop(pack, decision)
        if not decision.go:
            self._pacer.give_back(weight)
            return self._not_going(pack, decision)
        self.in_flight.add(reservation.attempt)
        if len(pack.jobs) < count:
            request = await self._requests.of(pack.jobs, context.ceiling)
            reservation = replace(reservation, asks=_asks(pack))
        too_late = self._too_late() or time.monotonic() - asked > _SEND_WITHIN_SECONDS
        if too_late or isinstance(request, Failure) or request.worst > reservation.reserved:
            self._pacer.give_back(weight)
            await self._ledger.settle(Settlement(reservation.attempt, "released", cost=0))
            result: _Result | _Again = _Again.AT_ONCE
        else:
            result = await self._send(pack, reservation, request, key, weight)
        # not where that raised: whatever became of the request, it must not stay open
        self.in_flight.discard(reservation.attempt)
        return result

    def _too_late(self) -> bool:
        """Return whether a request that has its slot must not be sent any more."""
        return self._stop.is_set() and not self._pacer.ended_the_day

    def _reservation(
        self, pack: Pack, context: RequestContext, request: Request, key: ApiKey
    ) -> Reservation:
        first = pack.jobs[0]
        return Reservation(
            attempt=new_id(),
            context=context,
            asks=_asks(pack),
            kind=_kind(pack),
            reserved=request.worst,
            reserved_tokens=request.tokens,
            request_bytes=request.body.weight,
            partition=first.partition,
            key_fp=key.fingerprint,
            number=max(job.attempts for job in pack.jobs) + 1,
        )

    def _drop(self, pack: Pack, decision: Decision) -> None:
        """Take those out of `pack` that need no request, or must not have one now."""
        for job in tuple(pack.jobs):
            key = job.question.answer_key
            if key in decision.hits:
                pack.end(job, stored(decision.hits[key]))
            elif key in decision.held:
                pack.end(job, held(decision.held[key]))
            elif key in decision.taken:
                self.delayed()
                pack.leave(job)

    def _not_going(self, pack: Pack, decision: Decision) -> _Result | _Again:
        if pack.jobs and decision.wait:
            return _Again.NO_ROOM
        if pack.jobs and decision.broke is not None:
            self._out_of_money(pack, decision.broke)
        return None

    def _out_of_money(self, pack: Pack, broke: Broke) -> None:
        if len(pack.jobs) > 1 and broke.limit.unit != "requests":
            assert self._sender.sizes is not None
            self._sender.sizes.too_dear(len(pack.jobs))
            pack.halve()  # there may be room for fewer
            return
        reason = budget_used_up(self._context, broke)
        first = pack.jobs[0]
        if not first.raised and not first.reasked:  # a better answer that is too dear stops nobody
            self._stop.set(reason)
        pack.end_all(failed(Outcome.NOT_ATTEMPTED, reason))

    async def _send(
        self, pack: Pack, reservation: Reservation, request: Request, key: ApiKey, weight: int
    ) -> _Result | _Again:
        result = await self._sender.send(pack, reservation, request, key.index, weight)
        if isinstance(result, Failure):
            told = self._other_key(key, result)
            for job in pack.jobs:
                job.probes += told is _Again.AT_ONCE
            return told
        if (no_provider := self.refusals.received(result)) is not None:
            self._stop.set(no_provider)
        return None

    def _other_key(self, key: ApiKey, failure: Failure) -> Failure | _Again:
        """Set a key aside that is refused; say whether another one is left for the row."""
        if not benches(failure):
            return failure
        said = self._keys.bench(key, failure)
        if self._keys.left:
            if said is not None:
                self._progress.warnings.append(said)
            return _Again.AT_ONCE
        if len(self._keys.keys) == 1:
            return failure
        return replace(failure, message=f"no key is left: {self._keys.reasons()}")

    def _give_up(self, pack: Pack, failure: Failure) -> None:
        """End rows whose last attempt failed; stop the run where all would."""
        if pack.too_slow or (len(pack.jobs) > 1 and _may_be_one_of_them(failure)):
            self._ask_apart(pack, failure)
            return
        if (later := deferred(failure)) is not None:
            failure = later
        if later is not None or self._fatal(failure):
            self._stop.set(failure)
        elif not (failure.retryable and self._traffic.is_out):
            for job in tuple(pack.jobs):
                pack.end(job, replace(failed(Outcome.ERROR, failure), attempt=job.last))
        # it is not the row's fault
        pack.end_all(failed(Outcome.NOT_ATTEMPTED, failure))

    def _ask_apart(self, pack: Pack, failure: Failure) -> None:
        """Go on with fewer questions at a time; where the failure was paid, as after damage."""
        if pack.kind == "first" and self._sender.sizes is not None:
            self._sender.sizes.learn(len(pack.jobs), len(pack.jobs))
        if pack.too_slow:
            pack.ask_alone()
        elif failure.evidence is not Evidence.RECEIVED:
            pack.halve()
        else:
            pack.repair_all(len(pack.jobs))

    def _fatal(self, failure: Failure) -> bool:
        if failure.error_class is ErrorClass.EXHAUSTED:
            return True
        if failure.code is ErrorCode.BAD_REQUEST:
            return self.refusals.all_refused(self.in_flight)
        if failure.error_class is ErrorClass.CONFIG:
            return True
        return failure.code is ErrorCode.CONNECT_FAILED and not self.refusals.answered


def _may_be_one_of_them(failure: Failure) -> bool:
    """Return whether a single question may be why several were refused, or their number."""
    return failure.error_class is ErrorClass.ROW or failure.code is ErrorCode.BAD_REQUEST


def _kind(pack: Pack) -> AttemptKind:
    question = pack.jobs[0].question
    if question.verify:
        return "verify"
    return "retry" if question.instead_of and pack.kind != "reask" else pack.kind


def _asks(pack: Pack) -> tuple[Ask, ...]:
    questions = (job.question for job in pack.jobs)
    return tuple(Ask(one.answer_key, one.row_key, one.instead_of) for one in questions)
