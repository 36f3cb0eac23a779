"""T2: how requests ended: money, asks, answers, trace outbox. Runs inside one write transaction.

Settling is idempotent: a settled attempt is final, and a second settlement of it moves nothing. A
late answer of an unknown or released attempt is welcome: it is paid and true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import NewAnswer, Settlement
from ondine_dagster.ledger.spend import Amounts, Movements

_t, _a = schema.attempts.c, schema.answers.c
_OLD = sa.select(
    _t.id,
    _t.state,
    _t.kind,
    _t.dataset,
    _t.run_scope,
    _t.day,
    _t.ceiling,
    _t.reserved,
    _t.reserved_tokens,
)
_UPDATE_ATTEMPT = (
    sa.update(schema.attempts)
    .where(_t.id == sa.bindparam("b_id"))
    .values(
        {
            name: sa.bindparam(f"b_{name}")
            for name in (
                "state cost cost_source prompt_tokens completion_tokens cached_tokens "
                "reasoning_tokens model_served remote_id class code t_end"
            ).split()
        }
    )
)
_UPDATE_ASKS = (
    sa.update(schema.asks)
    .where(schema.asks.c.attempt == sa.bindparam("b_attempt"))
    .values(open=sa.bindparam("b_open"), verdict=sa.bindparam("b_verdict"))
)
_UPDATE_ASK = _UPDATE_ASKS.where(schema.asks.c.answer_key == sa.bindparam("b_answer_key")).values(
    cost_share=sa.bindparam("b_cost_share")
)
_RETIRE = (
    sa.update(schema.answers)
    .where(_a.answer_key == sa.bindparam("b_key"), _a.current == sa.literal_column("1"))
    .values(current=0)
)
_NEXT = {
    "open": frozenset({"settled", "released", "unknown"}),
    "unknown": frozenset({"settled", "released"}),
    "released": frozenset({"settled"}),
    "settled": frozenset[str](),
}
# kinds whose answer replaces the current one; others only fill a place that is empty
_REPLACING = frozenset({"retry", "reask"})


def settle(connection: Connection, group: Sequence[Settlement]) -> None:
    """Apply the settlements of the group; those of attempts settled before are skipped."""
    old = {row.id: row for row in _rows(connection, [item.attempt for item in group])}
    due = [item for item in group if item.state in _NEXT[old[item.attempt].state]]
    due = list({item.attempt: item for item in due}.values())  # twice in a group: once
    if not due:
        return
    movements = Movements()
    for item in due:
        _move(movements, old[item.attempt], item)
    movements.write(connection)
    now = now_ms()
    connection.execute(_UPDATE_ATTEMPT, [_attempt_values(item, now) for item in due])
    connection.execute(_UPDATE_ASKS, [_ask_values(item) for item in due])
    _store_answers(connection, due, old)
    connection.execute(sa.insert(schema.outbox), [{"attempt": item.attempt} for item in due])


def _rows(connection: Connection, attempts: list[bytes]) -> Sequence[Row[Any]]:
    return connection.execute(_OLD.where(_t.id.in_(attempts))).all()


def _move(movements: Movements, old: Row[Any], item: Settlement) -> None:
    where = (old.dataset, old.run_scope, old.day)
    worst: Amounts = (old.reserved, 1, old.reserved_tokens)
    if item.state == "unknown":
        return  # counts at its worst case until somebody knows better
    if old.state in ("open", "unknown"):
        movements.release(where, worst)
    if item.state == "settled":
        movements.settle(where, (item.cost or 0, 1, _tokens(item, old)))


def _tokens(item: Settlement, old: Row[Any]) -> int:
    usage = item.usage
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return int(old.reserved_tokens)
    return usage.prompt_tokens + usage.completion_tokens


def _attempt_values(item: Settlement, now: int) -> dict[str, Any]:
    usage = item.usage
    return {
        "b_id": item.attempt,
        "b_state": item.state,
        "b_cost": item.cost,
        "b_cost_source": item.cost_source,
        "b_prompt_tokens": usage.prompt_tokens,
        "b_completion_tokens": usage.completion_tokens,
        "b_cached_tokens": usage.cached_tokens,
        "b_reasoning_tokens": usage.reasoning_tokens,
        "b_model_served": item.model_served,
        "b_remote_id": item.remote_id,
        "b_class": item.error_class,
        "b_code": item.code,
        "b_t_end": now,
    }


def _ask_values(item: Settlement) -> dict[str, Any]:
    return {
        "b_attempt": item.attempt,
        "b_open": 0,
        "b_verdict": item.state,
    }


def _store_answers(
    connection: Connection, due: Sequence[Settlement], old: dict[bytes, Row[Any]]
) -> None:
    received = [(item, answer) for item in due for answer in item.answers]
    if not received:
        return
    takes = _takes(connection, [answer.answer_key for _, answer in received])
    retired: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    bodies: list[dict[str, Any]] = []
    for item, answer in received:
        key, row = answer.answer_key, old[item.attempt]
        take, has_current = takes.get(key, (0, False))
        replaces = row.kind in _REPLACING
        if has_current and replaces:
            retired.append({"b_key": key})
        current = row.kind != "verify" and (replaces or not has_current)
        takes[key] = (take + 1, has_current or current)
        answers.append(_answer_row(item, answer, row.ceiling, take + 1, current))
        bodies.append(_body_row(answers[-1]["id"], answer))
    if retired:
        connection.execute(_RETIRE, retired)
    connection.execute(sa.insert(schema.answers), answers)
    connection.execute(sa.insert(schema.payloads), bodies)
    connection.execute(_UPDATE_ASK, [_verdict_values(item, answer) for item, answer in received])


def _takes(connection: Connection, keys: list[bytes]) -> dict[bytes, tuple[int, bool]]:
    statement = (
        sa.select(_a.answer_key, sa.func.max(_a.take), sa.func.max(_a.current))
        .where(_a.answer_key.in_(keys))
        .group_by(_a.answer_key)
    )
    return {key: (take, bool(current)) for key, take, current in connection.execute(statement)}


def _answer_row(
    item: Settlement, answer: NewAnswer, ceiling: int, take: int, current: bool
) -> dict[str, Any]:
    usage = item.usage
    return {
        "id": new_id(),
        "answer_key": answer.answer_key,
        "take": take,
        "current": int(current),
        "attempt": item.attempt,
        "verdict": answer.verdict,
        "code": answer.code,
        "finish_reason": answer.finish_reason,
        "flags": ",".join(answer.flags) or None,
        "ceiling": ceiling,
        "model_served": item.model_served,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_share": answer.cost_share,
        "payload_state": "present",
    }


def _body_row(answer_id: bytes, answer: NewAnswer) -> dict[str, Any]:
    codec, body = payloads.encode(answer.text)
    return {"answer": answer_id, "codec": codec, "body": body}


def _verdict_values(item: Settlement, answer: NewAnswer) -> dict[str, Any]:
    return {
        "b_attempt": item.attempt,
        "b_open": 0,
        "b_answer_key": answer.answer_key,
        "b_verdict": answer.verdict,
        "b_cost_share": answer.cost_share,
    }
