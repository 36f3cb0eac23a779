"""Requests, settlements and looks into the tables, for the tests of this room."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import (
    Ask,
    AttemptKind,
    Decision,
    NewAnswer,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.llm.provider import Usage, Verdict

WORST, WORST_TOKENS, COST = 1000, 50, 7
CONTEXT = RequestContext(
    dataset="reviews",
    run_scope="run-1",
    provider="openai_compatible",
    identity="openai_compatible/m",
    base_url="http://127.0.0.1:9/v1",
    model="m",
    ceiling=100,
    price_version="declared",
    trace_percent=100.0,
)


def key(name: object) -> bytes:
    """Return the key of a question that is called `name`."""
    return hashlib.sha256(str(name).encode()).digest()


def request(
    *names: object,
    kind: AttemptKind = "first",
    row_key: str = "r1",
    attempt: bytes | None = None,
    **context: Any,
) -> Reservation:
    """Return a reservation that carries the questions `names`."""
    return Reservation(
        attempt=attempt or new_id(),
        context=replace(CONTEXT, **context),
        asks=tuple(Ask(key(name), row_key) for name in names),
        reserved=WORST,
        reserved_tokens=WORST_TOKENS,
        request_bytes=10,
        partition="rows-00000",
        kind=kind,
    )


def answered(
    item: Reservation, verdict: Verdict = Verdict.OK, text: str = "yes", cost: int = COST
) -> Settlement:
    """Return the settlement of a request whose questions all got the same answer."""
    shares = [cost, *[0] * (len(item.asks) - 1)]
    return Settlement(
        item.attempt,
        "settled",
        cost=cost,
        cost_source="computed",
        usage=Usage(3, 2),
        model_served="m-2024",
        answers=tuple(
            NewAnswer(ask.answer_key, verdict, text, share)
            for ask, share in zip(item.asks, shares, strict=True)
        ),
    )


def released(item: Reservation) -> Settlement:
    return Settlement(item.attempt, "released", cost=0)


def unknown(item: Reservation) -> Settlement:
    return Settlement(item.attempt, "unknown")


def go(ledger: Ledger, item: Reservation) -> Reservation:
    """Reserve `item`, which must be free to go."""
    decision = ledger.reserve(item)
    assert decision == Decision(go=[ask.answer_key for ask in item.asks]), decision
    return item


def ask_and_answer(ledger: Ledger, name: object, **answer: Any) -> Reservation:
    """Reserve and settle a question."""
    item = go(ledger, request(name))
    ledger.settle(answered(item, **answer))
    return item


def rows(database: Database, sql: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql, parameters)]


def value(database: Database, sql: str, *parameters: Any) -> Any:
    """Return the one value that `sql` finds."""
    ((found,),) = rows(database, sql, *parameters)
    return found


def execute(database: Database, sql: str, *parameters: Any) -> None:
    """Write raw SQL, past everything that keeps the ledger sound."""
    with database.write() as connection:
        connection.exec_driver_sql(sql, parameters)


def state(ledger: Ledger, item: Reservation) -> str:
    found: str = value(ledger.database, "SELECT state FROM attempts WHERE id = ?", item.attempt)
    return found


def counter(database: Database, unit: str = "usd", window: str = "total") -> tuple[int, int]:
    """Return (settled, reserved) over all datasets."""
    found = rows(
        database,
        """SELECT settled, reserved FROM spend WHERE scope='all' AND "window"=? AND unit=?""",
        window,
        unit,
    )
    return (found[0][0], found[0][1]) if found else (0, 0)


def problems(database: Database) -> list[str]:
    with database.read() as connection:
        return check(connection)


def hits(decision: Decision) -> Mapping[bytes, str | None]:
    return {found: answer.text for found, answer in decision.hits.items()}
