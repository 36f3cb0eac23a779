"""Sends a reserved request and settles what became of it: for the ledger, its rows, and the others.

The settlement is durable before anybody hears of the answer.
"""

from __future__ import annotations

import time

from ondine_dagster.engine.budget_queue import BudgetQueue
from ondine_dagster.engine.events import Hear, attempt_ended, request_sent
from ondine_dagster.engine.in_process import InProcessTransport
from ondine_dagster.engine.job import Pack
from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.pack_sizes import PackSizes
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.request import Request
from ondine_dagster.engine.retry import LONGEST_RETRY_AFTER_SECONDS, renews_later
from ondine_dagster.engine.rows import explain
from ondine_dagster.engine.settlements import (
    answered,
    settlement_of_answer,
    settlement_of_failure,
)
from ondine_dagster.engine.shares import shares
from ondine_dagster.engine.stop import StopSign, bound_violated
from ondine_dagster.engine.token_weight import TokenWeight
from ondine_dagster.engine.traffic import Traffic
from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.ledger.rates import UNLIMITED, Rates
from ondine_dagster.ledger.records import RequestContext, Reservation, Settlement
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.llm.provider import Completion, Provider
from ondine_dagster.llm.rate_headers import used_up_for

# packs of this part of a day's tokens leave little of the day unused
_PART_OF_DAY = 20


class Sender:
    """Sends the requests of one run. Belongs to one event loop."""

    def __init__(
        self,
        ledger: LedgerClient,
        provider: Provider,
        transport: Transport | InProcessTransport,
        context: RequestContext,
        *,
        traffic: Traffic,
        pacer: Pacer,
        budget: BudgetQueue,
        stop: StopSign,
        progress: Progress,
        packs: PackPlan | None = None,
        rates: Rates = UNLIMITED,
        hear: Hear | None = None,
    ) -> None:
        """Without `packs` every question goes alone. A pack keeps well within the `rates`.

        `hear` is told of every request.
        """
        self._hear = hear
        self._ledger = ledger
        self._provider = provider
        self._context = context
        self._transport = transport
        self._traffic = traffic
        self._pacer = pacer
        self._budget = budget
        self._stop = stop
        self._progress = progress
        self._counts_tokens = any(limit.unit == "tokens" for limit in context.limits)
        # what requests weigh in tokens per minute
        self.weight = TokenWeight(provider.ceiling)
        self.sizes = (
            PackSizes(packs, lambda: self.weight.answer_tokens, _most_tokens(rates))
            if packs
            else None
        )

    async def send(
        self, pack: Pack, reservation: Reservation, request: Request, key: int, weight: int
    ) -> Completion | Failure:
        """Return what came, under the key of this place in the ring.

        After an answer no question is left in `pack`: it ends, or goes on in a smaller pack.
        """
        self._progress.sent(reservation.reserved, len(pack.jobs), repairing=pack.repair > 0)
        sent = request_sent(self._context, reservation, pack.jobs) if self._hear else None
        if self._hear and sent:
            self._hear(sent)
        try:
            result = await self._exchange(pack, reservation, request, key)
            items = () if isinstance(result, Failure) else request.read(result)
            if isinstance(result, Failure):
                settlement = settlement_of_failure(result, reservation, request.weights)
            else:
                settlement = settlement_of_answer(
                    result, items, reservation, request.weights, request.provider
                )
            await self._ledger.settle(settlement)
        finally:
            self._progress.in_flight -= 1
            self._progress.reserved -= reservation.reserved
        if self._hear and sent:
            failure = result if isinstance(result, Failure) else None
            self._hear(attempt_ended(sent, settlement, failure, pack.jobs[0].latency_ms))
        self._count(pack, reservation, request, settlement, weight)
        if isinstance(result, Failure):
            for job in pack.jobs:
                job.note("failed", result.code, result.message)
        if isinstance(result, Failure) and result.code is ErrorCode.TIMEOUT:
            pack.timeouts += not self._traffic.is_out
        for job, item in zip(tuple(pack.jobs), items, strict=False):  # no items of a failure
            if isinstance(item, Completion):
                if item.code is not None:
                    job.note("no_use", item.code, explain(item.code, item.finish_reason))
                pack.end(job, answered(item, settlement))
            else:
                job.damages.append(item)
                job.note("damaged", item, f"its part of an answer for {len(items)} rows")
        if self.sizes and len(items) > 1 and pack.kind == "first":
            self.sizes.learn(len(items), len(pack.jobs))
        if items and pack.jobs:
            pack.repair_all(len(items))
        return result

    async def _exchange(
        self, pack: Pack, reservation: Reservation, request: Request, key: int
    ) -> Completion | Failure:
        pack.jobs[0].requests += 1
        for job in pack.jobs:
            job.attempts += 1
            job.last = reservation.attempt
        started = time.monotonic()
        result: Reply | Completion | Failure
        result = await self._transport.post(request.body.data, key)
        latency_ms = round(1000 * (time.monotonic() - started))
        for job in pack.jobs:
            job.latency_ms = latency_ms
        if isinstance(result, Reply):
            used_up = used_up_for(result.headers)
            result = request.provider.parse(result.status, result.headers, result.body)
            if used_up:
                self._pause(used_up)
        if isinstance(result, Failure) and result.retryable:
            for job in pack.jobs:
                job.probes += self._traffic.is_out
            self._traffic.failed(result, started)
        else:
            self._traffic.answered(started)
        return result

    def _count(
        self,
        pack: Pack,
        reservation: Reservation,
        request: Request,
        settlement: Settlement,
        weight: int,
    ) -> None:
        """Take in what a request really used: for its rows, those who wait, and the bound."""
        unknown = settlement.state == "unknown"
        amount = reservation.reserved if unknown else settlement.cost or 0
        for job, share in zip(pack.jobs, shares(amount, request.weights), strict=True):
            if unknown:
                job.unknown_cost += share
            else:
                job.cost += share
        if unknown:
            return
        self._budget.freed()
        if settlement.state == "released":
            # a 429 keeps its tokens: a server that is short of them gets time to recover
            if settlement.code != ErrorCode.RATE_LIMITED:
                self._pacer.correct(-weight)
            return
        self._progress.latencies.add(pack.jobs[0].latency_ms or 0)
        tokens = self.weight.learn(request.body.weight, settlement.usage, len(pack.jobs))
        if tokens is not None:
            self._pacer.correct(tokens - weight)
        over = amount - reservation.reserved
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


def _most_tokens(rates: Rates) -> int | None:
    """Return how many tokens a pack should use at most; None where no rate is declared."""
    allowed = [rates.tokens_per_minute]
    if rates.tokens_per_day is not None:
        allowed.append(rates.tokens_per_day // _PART_OF_DAY)
    return min((one for one in allowed if one is not None), default=None)
