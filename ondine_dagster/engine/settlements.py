"""What became of a request, as the ledger records it and as its row ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ondine_dagster.engine.rows import DAMAGE, Outcome, RowOutcome, explain
from ondine_dagster.engine.shares import shares
from ondine_dagster.ledger.records import Ask, NewAnswer, Reservation, Settlement
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.provider import Completion, Provider, Verdict, error_class_of
from ondine_dagster.wording import plural


def held(unknown: int) -> RowOutcome:
    """Return the end of a row that waits for a person: `unknown` requests may have been billed."""
    return RowOutcome(
        outcome=Outcome.HELD,
        error_class=ErrorClass.UNKNOWN,
        code=ErrorCode.UNKNOWN_HELD,
        message=(
            f"{plural(unknown, 'request')} for this row may have been billed without an answer; "
            "it is not asked again before `ondine-dagster ledger resolve` (or a higher "
            "limits.max_unknown)"
        ),
    )


def answered(completion: Completion, settlement: Settlement) -> RowOutcome:
    """Return the end of a row whose answer came, usable or not."""
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
        attempt=settlement.attempt,
    )


def settlement_of_answer(
    completion: Completion,
    items: Sequence[Completion | str],
    reservation: Reservation,
    weights: Sequence[int],
    provider: Provider,
) -> Settlement:
    """Return what a received body cost, and what is kept of it.

    `items` are what it says of each question, or why that is of no use; `weights` divide the
    cost among them all.
    """
    billed = provider.cost(completion)
    # paid, and nobody says how much: the worst case
    cost = reservation.reserved if billed.amount is None else billed.amount
    parts = list(zip(reservation.asks, items, shares(cost, weights), strict=True))
    damaged = [(ask.answer_key, item, cost) for ask, item, cost in parts if isinstance(item, str)]
    return Settlement(
        attempt=reservation.attempt,
        state="settled",
        cost=cost,
        cost_source=billed.source,
        upstream_cost=completion.upstream_cost,
        is_byok=completion.is_byok,
        usage=completion.usage,
        model_served=completion.model_served,
        provider_served=completion.provider_served,
        remote_id=completion.remote_id,
        error_class=error_class_of(completion.verdict),
        code=completion.code,
        answers=tuple(
            _new_answer(ask, item, cost)
            for ask, item, cost in parts
            if isinstance(item, Completion)
        ),
        shares=tuple((key, cost) for key, _, cost in damaged),
        damages=tuple((key, f"{DAMAGE}{why}") for key, why, _ in damaged),
    )


def _new_answer(ask: Ask, item: Completion, cost: int) -> NewAnswer:
    return NewAnswer(
        answer_key=ask.answer_key,
        verdict=item.verdict,
        text=item.text,
        cost_share=cost,
        code=item.code,
        finish_reason=item.finish_reason,
        flags=item.flags,
        usage=item.usage,
    )


def settlement_of_failure(
    failure: Failure, reservation: Reservation, weights: Sequence[int]
) -> Settlement:
    """Return how a request without an answer ends: free or paid by evidence, else unknown."""
    asks = reservation.asks
    if failure.evidence is Evidence.RECEIVED:
        costs = shares(reservation.reserved, weights)
        return Settlement(
            attempt=reservation.attempt,
            state="settled",
            cost=reservation.reserved,
            cost_source="estimated",
            remote_id=failure.remote_id,
            error_class=failure.error_class,
            code=failure.code,
            shares=tuple((ask.answer_key, cost) for ask, cost in zip(asks, costs, strict=True)),
        )
    free = failure.evidence is not Evidence.UNKNOWN
    remembered: tuple[NewAnswer, ...] = ()
    # alone it would fail the same way for ever; of several nobody knows which one is to blame
    if free and failure.error_class is ErrorClass.ROW and len(asks) == 1:
        key = asks[0].answer_key
        remembered = (NewAnswer(key, Verdict.FAILED, failure.message, 0, failure.code),)
    return Settlement(
        attempt=reservation.attempt,
        state="released" if free else "unknown",
        cost=0 if free else None,
        remote_id=failure.remote_id,
        error_class=failure.error_class,
        code=failure.code,
        answers=remembered,
    )
