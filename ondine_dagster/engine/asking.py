"""Asks one question: permit, rate slot, reserve, send, settle; again where that may help.

Owns the order of steps that keeps the money right. Nothing is sent before its reservation is
durable, nothing is handed on before its settlement is. A permit is held from before the rate slot
until after the settlement, and never while backing off or waiting for money.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from ondine_dagster.engine.budget_queue import BudgetQueue
from ondine_dagster.engine.contents import Contents
from ondine_dagster.engine.in_process import InProcessTransport
from ondine_dagster.engine.job import Job, longer_or_cut
from ondine_dagster.engine.keys import ApiKey, KeyRing, benches
from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.refusals import Refusals
from ondine_dagster.engine.retry import (
    LONGEST_RETRY_AFTER_SECONDS,
    deferred,
    may_repeat,
    renews_later,
    retrying,
)
from ondine_dagster.engine.rows import Outcome, RowOutcome, failed, stored
from ondine_dagster.engine.settlements import (
    answered,
    held,
    settlement_of_answer,
    settlement_of_failure,
)
from ondine_dagster.engine.stop import StopSign, bound_violated, budget_used_up
from ondine_dagster.engine.token_weight import TokenWeight
from ondine_dagster.engine.traffic import Traffic
from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import (
    Ask,
    Broke,
    Decision,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.llm.context import too_long
from ondine_dagster.llm.errors import STOPS, ErrorClass, ErrorCode, Failure
from ondine_dagster.llm.provider import Completion, Provider
from ondine_dagster.llm.rate_headers import used_up_for

# a reservation that took longer is given back unsent: it may have been reaped meanwhile
_SEND_WITHIN_SECONDS = 10.0


class _Again(Enum):
    """Why a question is tried once more without counting it as an attempt that failed."""

    NO_ROOM = "wait for money"
    AT_ONCE = "another key, a reservation that came too late, a provider that is out since"


_Result = RowOutcome | Failure | None


class Asker:
    """Asks questions of one provider for one run. Belongs to one event loop."""

    def __init__(
        self,
        ledger: LedgerClient,
        provider: Provider,
        transport: Transport | InProcessTransport,
        context: RequestContext,
        *,
        traffic: Traffic,
        pacer: Pacer,
        keys: KeyRing,
        budget: BudgetQueue,
        contents: Contents,
        max_attempts: int,
        stop: StopSign,
        progress: Progress,
    ) -> None:
        """`max_attempts` bounds the requests per question of this run."""
        self._ledger = ledger
        self._provider = provider
        self._transport = transport
        self._context = context
        self._raised = (
            replace(context, ceiling=provider.raised_ceiling) if provider.raised_ceiling else None
        )
        self._traffic = traffic
        self._pacer = pacer
        self._keys = keys
        self._budget = budget
        self._contents = contents
        self._max_attempts = max_attempts
        self._stop = stop
        self._progress = progress
        self._weight = TokenWeight(provider.ceiling)
        self._counts_tokens = any(limit.unit == "tokens" for limit in context.limits)
        # says whether rows wait that were never asked; they try a provider that is out
        self.others_wait: Callable[[], bool] = lambda: False
        # hears of each question whose first request has failed, or that another run is asking
        self.delayed: Callable[[], None] = lambda: None
        self.refusals = Refusals(provider.url)
        # tokens that fit into the model, as far as that is known
        self.context_window: int | None = None
        # requests that are reserved and whose end is not in the ledger yet
        self.in_flight: set[bytes] = set()

    async def ask(self, job: Job) -> RowOutcome | None:
        """Return the end of the row, or None: look again later, others are asked first."""
        if self.context_window is not None:
            model, messages = self._provider.model, job.question.messages
            if (failure := too_long(messages, self.context_window, model)) is not None:
                return failed(Outcome.ERROR, failure)
        outcome = await self._ask_and_repeat(job)
        if self._raised is None or job.raised or outcome is None:
            return outcome and job.charged(outcome)
        if outcome.code is ErrorCode.TRUNCATED:
            job.raised = True
            outcome = longer_or_cut(outcome, await self._ask_and_repeat(job))
        return outcome and job.charged(outcome)

    async def _ask_and_repeat(self, job: Job) -> RowOutcome | None:
        result = await self._attempt(job)
        if may_repeat(result):
            self.delayed()
            result = await self._repeat(job, result)
        return self._give_up(job, result) if isinstance(result, Failure) else result

    async def _repeat(self, job: Job, first: _Result) -> _Result:
        """Ask again with pauses. A row that never failed does without the loop's CPU."""
        known = [first]

        async def attempt() -> _Result:
            return known.pop() if known else await self._attempt(job)

        retry = retrying(lambda: self._used_up(job), self._stop.sleep)
        result: _Result = await retry(attempt)
        return result

    def _used_up(self, job: Job) -> bool:
        # a raised ceiling is one more
        return job.attempts - job.probes >= self._max_attempts + job.raised

    def not_attempted(self) -> RowOutcome:
        """Return the end of a row that the run stopped before."""
        reason = self._stop.reason
        assert reason is not None
        code = reason.code if reason.code in STOPS else ErrorCode.STOPPED
        return replace(failed(Outcome.NOT_ATTEMPTED, reason), code=code)

    async def _attempt(self, job: Job) -> _Result:
        """Try once, as often as it takes to get a permit, money and a key that works."""
        waited = bool(self._budget)
        if waited:
            await self._budget.wait(again=False)
        while True:
            if job.unknown_cost and self._traffic.is_out and self.others_wait():
                return None  # one more outcome that nobody knows might end it
            if self._stop.is_set() or not await self._traffic.enter():
                return self.not_attempted()
            try:
                result = await self._with_permit(job)
            finally:
                self._traffic.leave()
            if result is _Again.NO_ROOM:
                await self._budget.wait(again=waited)
                waited = True
            elif result is not _Again.AT_ONCE:
                if waited:
                    self._budget.found_room()
                return result

    async def _with_permit(self, job: Job) -> _Result | _Again:
        key = self._keys.take()
        if key is None:  # the last one was set aside, and the run is stopping
            return self.not_attempted()
        context = self._raised if job.raised and self._raised else self._context
        body = await self._contents.body(job.question.messages, context.ceiling)
        if isinstance(body, Failure):  # not the row's fault: the next run renders it anew
            return failed(Outcome.NOT_ATTEMPTED, body)
        weight, trying = self._weight.of(body.weight), self._traffic.is_out
        if (capped := await self._pacer.slot(weight)) is not None:
            self._stop.set(capped)
            return self.not_attempted()
        if self._too_late():
            return self.not_attempted()
        if self._traffic.is_out and not trying:  # since the permit was given
            self._pacer.give_back(weight)
            return _Again.AT_ONCE
        reservation = self._reservation(job, context, body.weight, key)
        asked = time.monotonic()
        decision = await self._ledger.reserve(reservation)
        if not decision.go:
            self._pacer.give_back(weight)
            return self._not_going(job, decision)
        self.in_flight.add(reservation.attempt)
        if self._too_late() or time.monotonic() - asked > _SEND_WITHIN_SECONDS:
            self._pacer.give_back(weight)
            await self._ledger.settle(Settlement(reservation.attempt, "released", cost=0))
            result: _Result | _Again = _Again.AT_ONCE
        else:
            result = await self._send(job, reservation, body.data, key, weight)
        # not where that raised: whatever became of the request, it must not stay open
        self.in_flight.discard(reservation.attempt)
        return result

    def _too_late(self) -> bool:
        """Return whether a request that has its slot must not be sent any more."""
        return self._stop.is_set() and not self._pacer.ended_the_day

    def _reservation(
        self, job: Job, context: RequestContext, request_bytes: int, key: ApiKey
    ) -> Reservation:
        provider, question = self._provider, job.question
        bound = provider.prompt_tokens_bound(question.messages)
        return Reservation(
            attempt=new_id(),
            context=context,
            asks=(Ask(question.answer_key, question.row_key, question.instead_of),),
            kind="retry" if question.instead_of else "first",
            reserved=provider.worst_case(bound, context.ceiling),
            reserved_tokens=bound + context.ceiling,
            request_bytes=request_bytes,
            partition=job.partition,
            key_fp=key.fingerprint,
            number=job.attempts + 1,
        )

    def _not_going(self, job: Job, decision: Decision) -> _Result | _Again:
        key = job.question.answer_key
        if key in decision.hits:
            return stored(decision.hits[key])
        if key in decision.held:
            return held(decision.held[key])
        if decision.wait:
            return _Again.NO_ROOM
        if decision.broke is not None:
            return self._out_of_money(job, decision.broke)
        self.delayed()
        return None

    def _out_of_money(self, job: Job, broke: Broke) -> RowOutcome:
        reason = budget_used_up(self._context, broke)
        if not job.raised:  # a longer answer that is too dear is no reason to stop the others
            self._stop.set(reason)
        return replace(failed(Outcome.NOT_ATTEMPTED, reason))

    async def _send(
        self, job: Job, reservation: Reservation, body: bytes, key: ApiKey, weight: int
    ) -> _Result | _Again:
        self._progress.requests += 1
        self._progress.in_flight += 1
        self._progress.reserved += reservation.reserved
        try:
            result, settlement = await self._exchange(job, reservation, body, key)
            await self._ledger.settle(settlement)
        finally:
            self._progress.in_flight -= 1
            self._progress.reserved -= reservation.reserved
        self._count(job, reservation, settlement, weight)
        if isinstance(result, Failure):
            told = self._other_key(key, result)
            job.probes += told is _Again.AT_ONCE
            return told
        if (no_provider := self.refusals.received(result)) is not None:
            self._stop.set(no_provider)
        return answered(result, settlement)

    async def _exchange(
        self, job: Job, reservation: Reservation, body: bytes, key: ApiKey
    ) -> tuple[Completion | Failure, Settlement]:
        job.attempts += 1
        job.last = reservation.attempt
        started = time.monotonic()
        result: Reply | Completion | Failure = await self._transport.post(body, key.index)
        job.latency_ms = round(1000 * (time.monotonic() - started))
        if isinstance(result, Reply):
            used_up = used_up_for(result.headers)
            result = self._provider.parse(result.status, result.headers, result.body)
            if used_up:
                self._pause(used_up)
        if isinstance(result, Failure):
            if result.retryable:
                job.probes += self._traffic.is_out
                self._traffic.failed(result, started)
            else:
                self._traffic.answered(started)
            return result, settlement_of_failure(result, reservation)
        self._traffic.answered(started)
        return result, settlement_of_answer(result, reservation, self._provider)

    def _count(
        self, job: Job, reservation: Reservation, settlement: Settlement, weight: int
    ) -> None:
        """Take in what a request really used: for the row, those who wait, and the bound."""
        job.cost += settlement.cost or 0
        if settlement.state == "unknown":
            job.unknown_cost += reservation.reserved
            return
        self._budget.freed()
        if settlement.state == "released":
            # a 429 keeps its tokens: a server that is short of them gets time to recover
            if settlement.code != ErrorCode.RATE_LIMITED:
                self._pacer.correct(-weight)
            return
        tokens = self._weight.learn(reservation.request_bytes, settlement.usage)
        if tokens is not None:
            self._pacer.correct(tokens - weight)
        over = (settlement.cost or 0) - reservation.reserved
        many = (tokens or 0) - reservation.reserved_tokens
        if over > 0 or (many > 0 and self._counts_tokens):
            self._traffic.violated()
            self._stop.set(bound_violated(self._provider, over, many))

    def _pause(self, seconds: float) -> None:
        """Hold all sends until a used-up window renews; one of hours ends the run."""
        if seconds <= LONGEST_RETRY_AFTER_SECONDS:
            self._traffic.pause(seconds)
        else:
            self._stop.set(renews_later(seconds))

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

    def _give_up(self, job: Job, failure: Failure) -> RowOutcome:
        """Return the end of a row whose last attempt failed; stop the run where all would."""
        if (later := deferred(failure)) is not None:
            failure = later
        if later is not None or self._fatal(failure):
            self._stop.set(failure)
        elif not (failure.retryable and self._traffic.is_out):
            return replace(failed(Outcome.ERROR, failure), attempt=job.last)
        return failed(Outcome.NOT_ATTEMPTED, failure)  # it is not the row's fault

    def _fatal(self, failure: Failure) -> bool:
        if failure.error_class is ErrorClass.EXHAUSTED:
            return True
        if failure.code is ErrorCode.BAD_REQUEST:
            return self.refusals.all_refused(self.in_flight)
        if failure.error_class is ErrorClass.CONFIG:
            return True
        return failure.code is ErrorCode.CONNECT_FAILED and not self.refusals.answered
