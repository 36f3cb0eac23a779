"""What the ledger knows about questions: answers, open asks, unknown outcomes. Read only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.records import Answer, KeyStates
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.provider import Usage, Verdict

_KEYS_PER_QUERY = 1000
_KEYS = sa.bindparam("keys", expanding=True)
_a, _p, _s = schema.answers.c, schema.payloads.c, schema.asks.c

# literals, not parameters: only so can SQLite use the partial indexes
_ANSWERS = (
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
        _p.codec,
        _p.body,
    )
    .outerjoin(schema.payloads, _p.answer == _a.id)
    .where(_a.answer_key.in_(_KEYS), _a.current == sa.literal_column("1"))
    .select_from(schema.answers)
)
_OPEN = sa.select(_s.answer_key).where(_s.answer_key.in_(_KEYS), _s.open == sa.literal_column("1"))
_UNKNOWN = (
    sa.select(_s.answer_key, sa.func.count())
    .where(_s.answer_key.in_(_KEYS), _s.verdict == sa.literal_column("'unknown'"))
    .group_by(_s.answer_key)
)


def look_up(connection: Connection, keys: Collection[bytes]) -> dict[bytes, Answer]:
    """Return the current answer of every key that has one, whatever its verdict."""
    return {row.answer_key: _answer(row) for row in _query(connection, _ANSWERS, keys)}


def open_keys(connection: Connection, keys: Collection[bytes]) -> set[bytes]:
    """Return the keys that somebody is asking right now."""
    return {row.answer_key for row in _query(connection, _OPEN, keys)}


def unknown_counts(connection: Connection, keys: Collection[bytes]) -> dict[bytes, int]:
    """Return how many requests of unknown outcome carried each key."""
    return {key: count for key, count in _query(connection, _UNKNOWN, keys)}


def key_states(connection: Connection, keys: Collection[bytes]) -> KeyStates:
    """Return which keys are answered by now and which somebody is still asking."""
    return KeyStates(answers=look_up(connection, keys), open=frozenset(open_keys(connection, keys)))


def usable(answer: Answer, ceiling: int) -> bool:
    """Return whether a stored answer serves a question with this ceiling.

    A finished answer is valid under any ceiling; a cut one only while no more is asked for.
    """
    return answer.verdict is not Verdict.TRUNCATED or ceiling <= answer.ceiling


def _query(
    connection: Connection, statement: sa.Select[tuple[object, ...]], keys: Collection[bytes]
) -> Iterator[Row[tuple[object, ...]]]:
    rest = iter(keys)
    while chunk := list(islice(rest, _KEYS_PER_QUERY)):
        yield from connection.execute(statement, {"keys": chunk})


def _answer(row: Row[tuple[object, ...]]) -> Answer:
    (key, take, attempt, verdict, code, finish, flags, ceiling, model, *tokens, codec, body) = row
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
        text=None if body is None else payloads.decode(codec, body),
    )
