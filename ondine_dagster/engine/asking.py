"""Asks one question: permit, reserve, send, settle; again where that may help.

Owns the order of steps that keeps the money right. Nothing is sent before its reservation is
durable, nothing is handed on before its settlement is. A permit is held from before the reservation
until after the settlement, and never while backing off.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.retry import may_repeat, out_for_long, retrying
from ondine_dagster.engine.rows import Outcome, Question, RowOutcome, explain, failed, stored
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import (
    Ask,
    Decision,
    NewAnswer,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.llm.errors import EXPLANATIONS, ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.provider import (
    Completion,
    Provider,
    Verdict,
    error_class_of,
)

# refused requests in a run without any answer: one may be a bad row, three are a bad declaration
_BAD_REQUESTS_BEFORE_STOP = 3
# rows one after the other that used up their attempts, with no answer in between: an outage
_EXHAUSTED_BEFORE_STOP = 10
# a server that answers like this is no provider: a web page, another service
_NO_COMPLETION = frozenset(
    {ErrorCode.REPLY_NOT_JSON, ErrorCode.REPLY_NOT_OBJECT, ErrorCode.NO_CHOICES}
)


@dataclass(slots=True)
class Job:
    """A question on its way, and what it has cost so far (picodollars)."""

    question: Question
    partition: str
    cost: int = 0
    unknown_cost: int = 0
    attempts: int = 0
    latency_ms: int | None = None
    bytes_left: bool = False


class Asker:
    """Asks questions of one provider for one run. Belongs to one event loop."""

    def __init__(
        self,
        ledger: LedgerClient,
        provider: Provider,
        transport: Transport,
        context: RequestContext,
        *,
        concurrency: int,
        max_attempts: int,
        stop: StopSign,
        progress: Progress,
    ) -> None:
        """`max_attempts` bounds the requests per question of this run."""
        self._ledger = ledger
        self._provider = provider
        self._transport = transport
        self._context = context
        self._permits = asyncio.Semaphore(concurrency)
        self._max_attempts = max_attempts
        self._stop = stop
        self._progress = progress
        self._bad_requests = 0
        self._exhausted = 0
        self._older: set[bytes] = set()  # in flight when the first request was refused
        # whether the provider takes our requests as they are: some answer of this run, old or new
        self.answered = False
        # requests that are reserved and whose end is not in the ledger yet
        self.in_flight: set[bytes] = set()

    async def ask(self, job: Job) -> RowOutcome | None:
        """Return the end of the row, or None where somebody else is asking right now."""
        result = await self._attempt(job)
        if may_repeat(result):
            result = await self._repeat(job, result)
        if isinstance(result, Failure):
            result = self._give_up(job, result)
        return result and _with_costs(result, job)

    async def _repeat(self, job: Job, first: RowOutcome | Failure | None) -> _Result:
        """Ask again with pauses. A row that never failed does without the loop's CPU."""
        known = [first]

        async def attempt() -> _Result:
            return known.pop() if known else await self._attempt(job)

        retry = retrying(lambda: job.attempts >= self._max_attempts, self._stop.sleep)
        result: _Result = await retry(attempt)
        return result

    def not_attempted(self) -> RowOutcome:
        """Return the end of a row that the run stopped before."""
        assert self._stop.reason is not None
        return replace(failed(Outcome.NOT_ATTEMPTED, self._stop.reason), code=ErrorCode.STOPPED)

    async def _attempt(self, job: Job) -> _Result:
        if self._stop.is_set():  # before queueing behind what is still in flight
            return self.not_attempted()
        async with self._permits:
            if self._stop.is_set():
                return self.not_attempted()
            body = self._provider.body(job.question.messages)
            reservation = self._reservation(job, len(body))
            decision = await self._ledger.reserve(reservation)
            if not decision.go:
                return self._not_going(job.question.answer_key, decision)
            self.in_flight.add(reservation.attempt)
            result = await self._send(job, reservation, body)
            # not where that raised: whatever became of the request, it must not stay open
            self.in_flight.discard(reservation.attempt)
            return result

    def _reservation(self, job: Job, request_bytes: int) -> Reservation:
        provider, question = self._provider, job.question
        bound = provider.prompt_tokens_bound(question.messages)
        return Reservation(
            attempt=new_id(),
            context=self._context,
            asks=(Ask(question.answer_key, question.row_key),),
            reserved=provider.prices.worst_case(bound, provider.ceiling),
            reserved_tokens=bound + provider.ceiling,
            request_bytes=request_bytes,
            partition=job.partition,
        )

    def _not_going(self, key: bytes, decision: Decision) -> RowOutcome | None:
        if key in decision.hits:
            return stored(decision.hits[key])
        if key in decision.held:
            return _held(decision.held[key])
        return None

    async def _send(self, job: Job, reservation: Reservation, body: bytes) -> RowOutcome | Failure:
        attempt = reservation.attempt
        if self._stop.is_set():  # set while the reservation was being written
            await self._ledger.settle(Settlement(attempt, "released", cost=0))
            return self.not_attempted()
        self._progress.requests += 1
        self._progress.in_flight += 1
        try:
            result, settlement = await self._exchange(job, reservation, body)
            await self._ledger.settle(settlement)
        finally:
            self._progress.in_flight -= 1
        job.cost += settlement.cost or 0
        if settlement.state == "unknown":
            job.unknown_cost += reservation.reserved
        if isinstance(result, Failure):
            return result
        if result.code in _NO_COMPLETION:
            self._notice_no_provider(result)
        else:
            self.answered = True
            self._exhausted = 0
        return _answered(result, settlement)

    def _notice_no_provider(self, reply: Completion) -> None:
        """Stop before every row has paid for a page that is no answer."""
        self._bad_requests += 1
        if not self.answered and self._bad_requests >= _BAD_REQUESTS_BEFORE_STOP:
            assert reply.code is not None
            message = (
                f"HTTP 200, but {EXPLANATIONS[reply.code]} and nothing was answered yet: no chat "
                f"completions at {self._provider.url}. Correct llm.base_url"
            )
            self._stop.set(Failure(ErrorClass.CONFIG, reply.code, message, Evidence.UNKNOWN))

    async def _exchange(
        self, job: Job, reservation: Reservation, body: bytes
    ) -> tuple[Completion | Failure, Settlement]:
        job.attempts += 1
        started = time.monotonic()
        result: Reply | Completion | Failure = await self._transport.post(body)
        job.latency_ms = round(1000 * (time.monotonic() - started))
        if isinstance(result, Reply):
            result = self._provider.parse(result.status, result.headers, result.body)
        if isinstance(result, Failure):
            job.bytes_left |= result.evidence is not Evidence.NOT_SENT
            return result, _settlement_of_failure(result, reservation)
        return result, _settlement_of_answer(result, reservation, self._provider)

    def _give_up(self, job: Job, failure: Failure) -> RowOutcome:
        """Return the end of a row whose last attempt failed; stop the run where all would."""
        if self._fatal(job, failure):
            self._stop.set(failure)
            return failed(Outcome.NOT_ATTEMPTED, failure)
        return failed(Outcome.ERROR, failure)

    def _fatal(self, job: Job, failure: Failure) -> bool:
        if failure.error_class is ErrorClass.EXHAUSTED or out_for_long(failure):
            return True
        if failure.code is ErrorCode.BAD_REQUEST:
            return self._all_refused()
        if failure.error_class is ErrorClass.CONFIG:
            return True
        if failure.retryable:
            self._exhausted += 1
        out = self._exhausted >= _EXHAUSTED_BEFORE_STOP
        return out or (failure.code is ErrorCode.CONNECT_FAILED and not job.bytes_left)

    def _all_refused(self) -> bool:
        """Return whether it is the declaration that the provider refuses, and not some rows.

        A refusal comes sooner than an answer: wait for what was in flight at the first one.
        """
        if not self._bad_requests:
            self._older = set(self.in_flight)
        self._bad_requests += 1
        enough = self._bad_requests >= _BAD_REQUESTS_BEFORE_STOP
        return enough and not self.answered and self._older.isdisjoint(self.in_flight)


_Result = RowOutcome | Failure | None


def _with_costs(outcome: RowOutcome, job: Job) -> RowOutcome:
    if not job.attempts:
        return outcome
    return replace(
        outcome,
        cost=job.cost,
        unknown_cost=job.unknown_cost,
        attempts=job.attempts,
        latency_ms=job.latency_ms,
    )


def _held(unknown: int) -> RowOutcome:
    return RowOutcome(
        outcome=Outcome.HELD,
        error_class=ErrorClass.UNKNOWN,
        code=ErrorCode.UNKNOWN_HELD,
        message=(
            f"{unknown} request(s) for this row may have been billed without an answer; it is not "
            "asked again before `ondine-dagster ledger resolve` (or a higher limits.max_unknown)"
        ),
    )


def _answered(completion: Completion, settlement: Settlement) -> RowOutcome:
    good = completion.verdict is Verdict.OK
    return RowOutcome(
        outcome=Outcome.ANSWERED if good else Outcome.ERROR,
        text=completion.text,
        finish_reason=completion.finish_reason,
        model_served=completion.model_served,
        usage=completion.usage,
        cost_source=settlement.cost_source,
        error_class=error_class_of(completion.verdict),
        code=completion.code,
        message=explain(completion.code, completion.finish_reason),
        flags=completion.flags,
    )


def _settlement_of_answer(
    completion: Completion, reservation: Reservation, provider: Provider
) -> Settlement:
    usage = completion.usage
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        cost = reservation.reserved  # paid, nobody says how much: the worst case
    else:
        cost = provider.prices.cost(
            usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens or 0
        )
    answer = NewAnswer(
        answer_key=reservation.asks[0].answer_key,
        verdict=completion.verdict,
        text=completion.text,
        cost_share=cost,
        code=completion.code,
        finish_reason=completion.finish_reason,
        flags=completion.flags,
    )
    return Settlement(
        attempt=reservation.attempt,
        state="settled",
        cost=cost,
        cost_source="computed" if usage.complete else "estimated",
        usage=usage,
        model_served=completion.model_served,
        remote_id=completion.remote_id,
        error_class=error_class_of(completion.verdict),
        code=completion.code,
        answers=(answer,),
    )


def _settlement_of_failure(failure: Failure, reservation: Reservation) -> Settlement:
    free = failure.evidence is not Evidence.UNKNOWN
    remembered: tuple[NewAnswer, ...] = ()
    if free and failure.error_class is ErrorClass.ROW:  # it would fail the same way for ever
        key = reservation.asks[0].answer_key
        remembered = (NewAnswer(key, Verdict.FAILED, failure.message, 0, failure.code),)
    return Settlement(
        attempt=reservation.attempt,
        state="released" if free else "unknown",
        cost=0 if free else None,
        error_class=failure.error_class,
        code=failure.code,
        answers=remembered,
    )
