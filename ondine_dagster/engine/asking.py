"""Asks one question: permit, reserve, send, settle; again where that may help.

Owns the order of steps that keeps the money right. Nothing is sent before its reservation is
durable, nothing is handed on before its settlement is. A permit is held from before the reservation
until after the settlement, and never while backing off.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from tenacity import AsyncRetrying

from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.retry import out_for_long
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
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.provider import (
    Completion,
    Provider,
    Verdict,
    error_class_of,
)

# a refused request in a run without any answer: one may be a bad row, three are a bad declaration
_BAD_REQUESTS_BEFORE_STOP = 3


@dataclass(slots=True)
class _Row:
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
        stop: StopSign,
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._provider = provider
        self._transport = transport
        self._context = context
        self._permits = asyncio.Semaphore(concurrency)
        self._stop = stop
        self._progress = progress
        self._bad_requests = 0
        self._answered = False
        self.in_flight: set[bytes] = set()

    async def ask(
        self, question: Question, partition: str, retry: AsyncRetrying
    ) -> RowOutcome | None:
        """Return the end of the row, or None where somebody else is asking right now."""
        row = _Row(question, partition)
        result: RowOutcome | Failure | None = await retry(self._attempt, row)
        if result is None:
            return None
        outcome = self._give_up(row, result) if isinstance(result, Failure) else result
        if not row.attempts:
            return outcome
        return replace(
            outcome,
            cost=row.cost,
            unknown_cost=row.unknown_cost,
            attempts=row.attempts,
            latency_ms=row.latency_ms,
        )

    def not_attempted(self) -> RowOutcome:
        """Return the end of a row that the run stopped before."""
        assert self._stop.reason is not None
        return replace(failed(Outcome.NOT_ATTEMPTED, self._stop.reason), code=ErrorCode.STOPPED)

    async def _attempt(self, row: _Row) -> RowOutcome | Failure | None:
        async with self._permits:
            if self._stop.reason is not None:
                return self.not_attempted()
            body = self._provider.body(row.question.messages)
            reservation = self._reservation(row, len(body))
            decision = await self._ledger.reserve(reservation)
            if not decision.go:
                return self._not_going(row.question.answer_key, decision)
            return await self._send(row, reservation, body)

    def _reservation(self, row: _Row, request_bytes: int) -> Reservation:
        provider, question = self._provider, row.question
        bound = provider.prompt_tokens_bound(question.messages)
        return Reservation(
            attempt=new_id(),
            context=self._context,
            asks=(Ask(question.answer_key, question.row_key),),
            reserved=provider.prices.worst_case(bound, provider.ceiling),
            reserved_tokens=bound + provider.ceiling,
            request_bytes=request_bytes,
            partition=row.partition,
        )

    def _not_going(self, key: bytes, decision: Decision) -> RowOutcome | None:
        if key in decision.hits:
            return stored(decision.hits[key])
        if key in decision.held:
            return _held(decision.held[key])
        return None

    async def _send(self, row: _Row, reservation: Reservation, body: bytes) -> RowOutcome | Failure:
        attempt = reservation.attempt
        if self._stop.reason is not None:  # set while the reservation was being written
            await self._ledger.settle(Settlement(attempt, "released", cost=0))
            return self.not_attempted()
        self.in_flight.add(attempt)
        self._progress.requests += 1
        self._progress.in_flight += 1
        try:
            result, settlement = await self._exchange(row, reservation, body)
            await self._ledger.settle(settlement)
        finally:
            self.in_flight.discard(attempt)
            self._progress.in_flight -= 1
        row.cost += settlement.cost or 0
        if settlement.state == "unknown":
            row.unknown_cost += reservation.reserved
        if isinstance(result, Failure):
            return result
        self._answered = True
        return _answered(result, settlement)

    async def _exchange(
        self, row: _Row, reservation: Reservation, body: bytes
    ) -> tuple[Completion | Failure, Settlement]:
        row.attempts += 1
        started = time.monotonic()
        reply = await self._transport.post(body)
        row.latency_ms = round(1000 * (time.monotonic() - started))
        try:
            result = (
                self._provider.parse(reply.status, reply.headers, reply.body)
                if isinstance(reply, Reply)
                else reply
            )
        except Exception:  # our bug, on an answer that was paid: keep the money right, then crash
            await self._ledger.settle(Settlement(reservation.attempt, "unknown"))
            raise
        if isinstance(result, Failure):
            row.bytes_left |= result.evidence is not Evidence.NOT_SENT
            return result, _settlement_of_failure(result, reservation)
        return result, _settlement_of_answer(result, reservation, self._provider)

    def _give_up(self, row: _Row, failure: Failure) -> RowOutcome:
        """Return the end of a row whose last attempt failed; stop the run where all would."""
        if self._fatal(row, failure):
            self._stop.set(failure)
            return failed(Outcome.NOT_ATTEMPTED, failure)
        return failed(Outcome.ERROR, failure)

    def _fatal(self, row: _Row, failure: Failure) -> bool:
        if failure.error_class is ErrorClass.EXHAUSTED or out_for_long(failure):
            return True
        if failure.code is ErrorCode.BAD_REQUEST:
            self._bad_requests += 1
            return not self._answered and self._bad_requests >= _BAD_REQUESTS_BEFORE_STOP
        if failure.error_class is ErrorClass.CONFIG:
            return True
        return failure.code is ErrorCode.CONNECT_FAILED and not row.bytes_left


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
