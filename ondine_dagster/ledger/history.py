"""Every request that was made for a row, over all runs. Read only.

No index serves the key of a row: one walk through `asks` finds it, 0.1 s for a million requests. So
what is written all the time stays cheap.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.sealing import Sealing, Unreadable, sealing_of

_t, _s, _a, _p = schema.attempts.c, schema.asks.c, schema.answers.c, schema.payloads.c


@dataclass(frozen=True, slots=True)
class RowRequest:
    """A request with its part for one row. Money in picodollars, times in ms since the epoch (UTC).

    `for_row` and `dataset` are what it was sent for: another row's request may have brought the
    answer. `rows` is how many it carried. `current`: its answer is the one that counts. `text` is
    None where none came, or where it was purged or is unreadable (`payload_state`).
    """

    id: bytes
    kind: str
    state: str
    dataset: str
    for_row: str
    run_id: str | None
    run_scope: str
    partition: str | None
    number: int
    rows: int
    provider: str
    base_url: str
    provider_served: str | None
    model_requested: str
    model_served: str | None
    remote_id: str | None
    ceiling: int
    price_version: str
    t_open: int
    t_end: int | None
    reserved: int
    cost: int | None
    cost_share: int | None
    cost_source: str | None
    error_class: str | None
    code: str | None
    answer_key: bytes
    verdict: str | None
    current: bool
    answer_code: str | None
    finish_reason: str | None
    flags: tuple[str, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    payload_state: str | None
    text: str | None


def requests_for_row(
    connection: Connection, dataset: str, row_key: str, answer_keys: Collection[bytes]
) -> list[RowRequest]:
    """Return the requests for a row of `dataset`, oldest first.

    Also those that brought an answer under one of its `answer_keys` for another row.
    """
    places = _places(row_key, answer_keys)
    others = schema.asks.alias()
    carried = sa.select(sa.func.count()).where(others.c.attempt == _t.id).scalar_subquery()
    statement = (
        sa.select(
            _t.id,
            _t.kind,
            _t.state,
            _t.dataset,
            _s.row_key,
            _t.run_id,
            _t.run_scope,
            _t.partition,
            _t.number,
            carried,
            _t.provider,
            _t.base_url,
            _t.provider_served,
            _t.model_requested,
            _t.model_served,
            _t.remote_id,
            _t.ceiling,
            _t.price_version,
            _t.t_open,
            _t.t_end,
            _t.reserved,
            _t.cost,
            _s.cost_share,
            _t.cost_source,
            _t["class"],
            _t.code,
            _s.answer_key,
            _s.verdict,
            _a.current,
            _a.code,
            _a.finish_reason,
            _a.flags,
            _a.prompt_tokens,
            _a.completion_tokens,
            _a.payload_state,
            _p.answer,
            _p.codec,
            _p.body,
        )
        .select_from(places)
        .join(schema.asks, (_s.attempt == places.c.attempt) & (_s.pos == places.c.pos))
        .join(schema.attempts, _t.id == _s.attempt)
        .outerjoin(
            schema.answers,
            (_a.answer_key == _s.answer_key) & (_a.take == _s.take) & (_a.attempt == _s.attempt),
        )
        .outerjoin(schema.payloads, schema.HAS_TEXT)
        .where(
            ((_s.row_key == row_key) & (_t.dataset == dataset))
            | (_s.answer_key.in_(answer_keys) & _a.id.is_not(None))
        )
        .order_by(_t.id, _s.pos)
    )
    sealing = sealing_of(connection)
    return [_request(row, sealing) for row in connection.execute(statement)]


def _places(row_key: str, answer_keys: Collection[bytes]) -> sa.Subquery:
    """Return where a row stands in requests, in those of any dataset, and its answers do."""
    own = sa.select(_s.attempt, _s.pos).where(_s.row_key == row_key)
    answered = (
        sa.select(_s.attempt, _s.pos)
        .select_from(schema.answers)
        .join(schema.asks, (_s.attempt == _a.attempt) & (_s.answer_key == _a.answer_key))
        .where(_a.answer_key.in_(answer_keys))
    )
    return sa.union(own, answered).subquery()


def _request(row: Any, sealing: Sealing) -> RowRequest:
    *most, current, code, finish, flags, prompt, completion, state, answer, codec, body = row
    try:
        text = None if body is None else payloads.decode(codec, body, answer, sealing)
    except Unreadable:
        text, state = None, "unreadable"
    told = tuple(flags.split(",")) if flags else ()
    answer = (bool(current), code, finish, told, prompt, completion, state, text)
    return RowRequest(*(*most, *answer))
