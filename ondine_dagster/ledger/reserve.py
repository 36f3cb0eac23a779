"""T1: look up, and reserve what is not answered. Runs inside one write transaction.

Each item gets its own decision: a refusal of one never rolls back the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.clock import now_ms, utc_day
from ondine_dagster.ledger.lookup import look_up, open_keys, unknown_counts, usable
from ondine_dagster.ledger.records import Decision, RequestContext, Reservation
from ondine_dagster.ledger.spend import Movements

_INSERT_ATTEMPT = sa.insert(schema.attempts)
_INSERT_ASK = sa.insert(schema.asks)


def reserve(connection: Connection, process: bytes, group: Sequence[Reservation]) -> list[Decision]:
    """Decide for every reservation of the group and record those that may go.

    Idempotent: an attempt that is in the ledger already (its commit was in doubt) goes.
    """
    keys = {ask.answer_key for item in group for ask in item.asks}
    known = _Known(connection, keys, [item.attempt for item in group])
    decisions = [known.decide(item) for item in group]
    _record(connection, process, group, decisions, known)
    return decisions


class _Known:
    """What the ledger and the items before this one say about the keys of a group."""

    def __init__(self, connection: Connection, keys: set[bytes], attempts: list[bytes]) -> None:
        self.answers = look_up(connection, keys)
        self._open = open_keys(connection, keys)
        self._unknown = unknown_counts(connection, keys)
        self.recorded = _recorded(connection, attempts)

    def decide(self, item: Reservation) -> Decision:
        decision = Decision()
        for ask in item.asks:
            self._decide_one(decision, item, ask.answer_key)
        return decision

    def _decide_one(self, decision: Decision, item: Reservation, key: bytes) -> None:
        if item.attempt in self.recorded:
            decision.go.append(key)
            return
        answer = self.answers.get(key)
        if answer is not None and item.kind == "first" and usable(answer, item.context.ceiling):
            decision.hits[key] = answer
            return
        count = self._unknown.get(key, 0)
        allowed = 0 if item.context.hold_unknown else item.context.max_unknown
        if key in self._open:
            decision.taken.append(key)
        elif count > allowed:
            decision.held[key] = count
        else:
            self._open.add(key)
            decision.go.append(key)

    def take(self, key: bytes) -> int:
        answer = self.answers.get(key)
        return answer.take + 1 if answer else 1


def _recorded(connection: Connection, attempts: list[bytes]) -> set[bytes]:
    column = schema.attempts.c.id
    return set(connection.execute(sa.select(column).where(column.in_(attempts))).scalars())


def _record(
    connection: Connection,
    process: bytes,
    group: Sequence[Reservation],
    decisions: Iterable[Decision],
    known: _Known,
) -> None:
    now = now_ms()
    day = utc_day(now)
    attempts: list[dict[str, Any]] = []
    asks: list[dict[str, Any]] = []
    movements = Movements()
    for item, decision in zip(group, decisions, strict=True):
        if not decision.go or item.attempt in known.recorded:
            continue
        context = item.context
        # a cut answer under a lower ceiling is replaced by the new one
        kind = "retry" if known.answers.keys() & set(decision.go) else item.kind
        attempts.append({**_attempt_row(process, item, now, day), "kind": kind})
        asks += _ask_rows(item, decision, known)
        where = (context.dataset, context.run_scope, day)
        movements.reserve(where, (item.reserved, 1, item.reserved_tokens))
    if attempts:
        connection.execute(_INSERT_ATTEMPT, attempts)
        connection.execute(_INSERT_ASK, asks)
        movements.write(connection)


def _attempt_row(process: bytes, item: Reservation, now: int, day: str) -> dict[str, Any]:
    return {
        **_context_columns(item.context),
        "id": item.attempt,
        "process": process,
        "state": "open",
        "day": day,
        "partition": item.partition,
        "request_bytes": item.request_bytes,
        "reserved": item.reserved,
        "reserved_tokens": item.reserved_tokens,
        "t_open": now,
    }


def _context_columns(context: RequestContext) -> dict[str, Any]:
    return {
        "dataset": context.dataset,
        "run_scope": context.run_scope,
        "provider": context.provider,
        "identity": context.identity,
        "base_url": context.base_url,
        "ceiling": context.ceiling,
        "price_version": context.price_version,
        "model_requested": context.model,
    }


def _ask_rows(item: Reservation, decision: Decision, known: _Known) -> list[dict[str, Any]]:
    going = set(decision.go)
    return [
        {
            "attempt": item.attempt,
            "pos": pos,
            "answer_key": ask.answer_key,
            "row_key": ask.row_key,
            "take": known.take(ask.answer_key),
            "open": 1,
        }
        for pos, ask in enumerate(item.asks)
        if ask.answer_key in going
    ]
