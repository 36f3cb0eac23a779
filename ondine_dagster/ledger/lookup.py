"""What the ledger knows about questions: answers, open asks, unknown outcomes. Read only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.records import Answer, KeyStates, Lost
from ondine_dagster.ledger.sealing import Sealing, Unreadable, sealing_of
from ondine_dagster.ledger.statements import KeyedSelect
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.provider import Usage, Verdict

_a, _p, _s = schema.answers.c, schema.payloads.c, schema.asks.c
_Keys = list[sa.BindParameter[Any]]
_UNLESS = "unless you say so: `ondine-dagster run DATASET --partition KEY --pay-again`"
_PURGED = Lost(
    ErrorCode.ANSWER_PURGED,
    f"Its answer is paid and its text was purged; it is not asked again {_UNLESS}",
)
# literals, not parameters: only so can the database use the partial indexes
_ONE: sa.ColumnElement[int] = sa.literal_column("1")
_ZERO: sa.ColumnElement[int] = sa.literal_column("0")
_UNKNOWN: sa.ColumnElement[str] = sa.literal_column("'unknown'")


def _answers(keys: _Keys) -> sa.Select[Any]:
    return (
        sa.select(
            _a.answer_key,
            _a.take,
            _a.attempt,
            _a.verdict,
            _a.code,
            _a.finish_reason,
            _a.flags,
            _a.ceiling,
            _a.model_served,
            _a.prompt_tokens,
            _a.completion_tokens,
            _a.cached_tokens,
            _a.reasoning_tokens,
            _p.answer,
            _p.codec,
            _p.body,
        )
        .outerjoin(schema.payloads, schema.HAS_TEXT)
        .where(_a.answer_key.in_(keys), _a.current == _ONE)
        .select_from(schema.answers)
    )


def _standing(keys: _Keys) -> sa.CompoundSelect[Any]:
    return sa.union_all(
        sa.select(_s.answer_key, _ONE, _ZERO).where(_s.answer_key.in_(keys), _s.open == _ONE),
        sa.select(_s.answer_key, _ZERO, sa.func.count())
        .where(_s.answer_key.in_(keys), _s.verdict == _UNKNOWN)
        .group_by(_s.answer_key),
    )


_ANSWERS = KeyedSelect(_answers)
_SETTLED = KeyedSelect(
    lambda ids: sa.select(schema.attempts.c.id, schema.attempts.c.run_scope).where(
        schema.attempts.c.id.in_(ids), schema.attempts.c.state == sa.literal_column("'settled'")
    )
)
_STANDING = KeyedSelect(_standing)


@dataclass(frozen=True, slots=True)
class Standing:
    """Keys that somebody is asking right now; requests of unknown outcome per key."""

    open: set[bytes]
    unknown: dict[bytes, int]


def look_up(connection: Connection, keys: Collection[bytes]) -> dict[bytes, Answer]:
    """Return the current answer of every key that has one, whatever its verdict."""
    sealing = sealing_of(connection)
    return {row[0]: _answer(row, sealing) for row in _ANSWERS.rows(connection, keys)}


def standing(connection: Connection, keys: Collection[bytes]) -> Standing:
    """Return what stands in the way of asking."""
    found = Standing(set(), {})
    for key, is_open, unknown in _STANDING.rows(connection, keys):
        if is_open:
            found.open.add(key)
        else:
            found.unknown[key] = unknown
    return found


def paid_in(connection: Connection, attempts: Collection[bytes], run_scope: str) -> set[bytes]:
    """Return those of `attempts` that this run paid."""
    return {row[0] for row in _SETTLED.rows(connection, attempts) if row[1] == run_scope}


def key_states(connection: Connection, keys: Collection[bytes]) -> KeyStates:
    """Return which keys are answered by now and which somebody is still asking."""
    # open asks first: a question that is answered in between is then at least among the answers
    still_open = standing(connection, keys).open
    return KeyStates(answers=look_up(connection, keys), open=frozenset(still_open))


def usable(answer: Answer, ceiling: int) -> bool:
    """Return whether a stored answer serves a question with this ceiling.

    A finished answer is valid under any ceiling; a cut one only while no more is asked for.
    """
    return answer.verdict is not Verdict.TRUNCATED or ceiling <= answer.ceiling


def _answer(row: Any, sealing: Sealing) -> Answer:
    (key, take, attempt, verdict, code, finish, flags, ceiling, model, *rest) = row
    *tokens, answer, codec, body = rest
    text, lost = _text(answer, codec, body, sealing)
    return Answer(
        answer_key=key,
        take=take,
        attempt=attempt,
        verdict=Verdict(verdict),
        code=ErrorCode(code) if code else None,
        finish_reason=finish,
        flags=tuple(flags.split(",")) if flags else (),
        ceiling=ceiling,
        model_served=model,
        usage=Usage(*tokens),
        text=text,
        lost=lost if verdict == Verdict.OK else None,  # the others say enough without a text
    )


def _text(
    answer: bytes, codec: int, body: bytes | None, sealing: Sealing
) -> tuple[str | None, Lost | None]:
    """Return the text of an answer, or why there is none: never a reason to pay once more."""
    if body is None:
        return None, _PURGED
    try:
        return payloads.decode(codec, body, answer, sealing), None
    except Unreadable as error:
        message = f"Its answer is paid and cannot be read: {error}; it is not asked again {_UNLESS}"
        return None, Lost(ErrorCode.ANSWER_UNREADABLE, message)
