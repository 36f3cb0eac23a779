"""Made-up requests as the ledger sees them: a reservation and what settles it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import Limit
from ondine_dagster.ledger.records import (
    Ask,
    NewAnswer,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster.llm.provider import Usage, Verdict

DATASET = "bench"
_ANSWER = '{"sentiment":"positive","score":7}'


def context(limits: tuple[Limit, ...] = ()) -> RequestContext:
    """Return what the requests of one run have in common."""
    return RequestContext(
        dataset=DATASET,
        run_scope="seed",
        provider="openai_compatible",
        identity="openai_compatible/gpt-4o-mini",
        base_url="http://127.0.0.1:1/v1",
        model="gpt-4o-mini",
        ceiling=1024,
        price_version="declared",
        limits=limits,
    )


def reservation(run: RequestContext, answer_key: bytes | None = None) -> Reservation:
    """Return a request for the question of this key, by default for a new question."""
    asks = (Ask(answer_key or os.urandom(32), "row"),)
    return Reservation(new_id(), run, asks, reserved=1000, reserved_tokens=100, request_bytes=500)


def settlement(item: Reservation) -> Settlement:
    """Return the end of a request that was answered."""
    answer = NewAnswer(item.asks[0].answer_key, Verdict.OK, _ANSWER, 30)
    return Settlement(
        item.attempt,
        "settled",
        cost=30,
        cost_source="computed",
        usage=Usage(120, 12),
        model_served="gpt-4o-mini",
        answers=(answer,),
    )


def pay(ledger: Ledger, answer_keys: Sequence[bytes]) -> None:
    """Put an answer for every question into the ledger, as if a run had paid them."""
    run = context()
    asked = [reservation(run, key) for key in answer_keys]
    wait_for(ledger.submit, asked)
    ledger.settle_all([settlement(item) for item in asked])
