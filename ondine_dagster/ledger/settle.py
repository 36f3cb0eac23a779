"""T2: how requests ended: money, asks, answers, trace outbox. Runs inside one write transaction.

Settling is idempotent: a settled attempt is final, and a second settlement of it moves nothing. A
late answer of an unknown or released attempt is welcome: it is paid and true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import payloads, schema, tracing
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.records import NewAnswer, Settlement
from ondine_dagster.ledger.sealing import sealing_of
from ondine_dagster.ledger.spend import Amounts, Movements, Where
from ondine_dagster.ledger.statements import KeyedSelect, Prepared, inserting
from ondine_dagster.llm.provider import Verdict

_t, _s, _a = schema.attempts.c, schema.asks.c, schema.answers.c
_NEXT = {
    "open": frozenset({"settled", "released", "unknown"}),
    "unknown": frozenset({"settled", "released"}),
    "released": frozenset({"settled"}),
    "settled": frozenset[str](),
}
# kinds whose answer replaces the current one; others only fill a place that is empty
_REPLACING = frozenset({"retry", "reask"})

_OLD = KeyedSelect(
    lambda ids: (
        sa.select(
            _t.id,
            _t.state,
            _t.kind,
            _t.dataset,
            _t.run_scope,
            _t.day,
            _t.ceiling,
            _t.reserved,
            _t.reserved_tokens,
            _t.traced,
            _t.run_id,
            _t.partition,
            _t.t_open,
            _s.pos,
            _s.answer_key,
            _s.take,
        )
        .outerjoin_from(schema.attempts, schema.asks, _s.attempt == _t.id)
        .where(_t.id.in_(ids))
    )
)
_STORED = KeyedSelect(
    lambda keys: sa.select(
        _a.answer_key, _a.take, _a.current, _a.verdict, _a.ceiling, _a.payload_state
    ).where(_a.answer_key.in_(keys))
)


_ENDED = (
    "state cost cost_source upstream_cost is_byok prompt_tokens completion_tokens cached_tokens "
    "cache_write_tokens reasoning_tokens model_served provider_served remote_id class code t_end"
)


def _new(table: sa.Table, names: str) -> list[tuple[Any, Any]]:
    """Return pairs for an update; its parameters must not have the names of columns."""
    return [(table.c[name], sa.bindparam(f"new_{name}")) for name in names.split()]


def _end_attempt(_: str) -> sa.ClauseElement:
    where = _t.id == sa.bindparam("attempt")
    return sa.update(schema.attempts).where(where).ordered_values(*_new(schema.attempts, _ENDED))


def _end_ask(_: str) -> sa.ClauseElement:
    where = (_s.attempt == sa.bindparam("attempt_id"), _s.pos == sa.bindparam("position"))
    values = _new(schema.asks, "verdict cost_share take")
    closed: tuple[Any, Any] = (_s.open, sa.literal_column("0"))
    return sa.update(schema.asks).where(*where).ordered_values(closed, *values)


def _retire(_: str) -> sa.ClauseElement:
    where = (_a.answer_key == sa.bindparam("key"), _a.current == sa.literal_column("1"))
    return (
        sa.update(schema.answers).where(*where).ordered_values((_a.current, sa.literal_column("0")))
    )


_END_ATTEMPT = Prepared(f"new_{_ENDED.replace(' ', ' new_')} attempt", _end_attempt)
_END_ASK = Prepared("new_verdict new_cost_share new_take attempt_id position", _end_ask)
_RETIRE = Prepared("key", _retire)
_INSERT_ANSWER = inserting(
    schema.answers,
    "id answer_key take current attempt verdict code finish_reason flags ceiling model_served "
    "prompt_tokens completion_tokens cached_tokens reasoning_tokens cost_share",
    payload_state="'present'",
)
_INSERT_PAYLOAD = inserting(schema.payloads, "answer codec body")


@dataclass(slots=True)
class _Attempt:
    """A request as it was reserved. `asks`: position and planned take of each key it carries."""

    state: str
    kind: str
    where: Where
    ceiling: int
    worst: Amounts
    traced: int
    lasting: tracing.Lasting | None  # where its run wants traces
    asks: dict[bytes, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Takes:
    """What is stored for a key: the highest take, and the current answer where there is one.

    `stored`: the current answer is in the ledger already. `index`: it is the one with this index
    among those that are being stored.
    """

    last: int = 0
    current: int | None = None
    verdict: str | None = None
    ceiling: int = 0
    purged: bool = False
    stored: bool = False
    index: int | None = None


def settle(connection: Connection, group: Sequence[Settlement], movements: Movements) -> None:
    """Apply the settlements of the group; those of attempts settled before are skipped.

    Raises LookupError for an attempt that was never reserved and for an answer to a question that
    its attempt did not carry.
    """
    if not group:
        return
    now = now_ms()
    old = _reserved(connection, group, now)
    due = _due(group, old)
    for item in due:
        _move(movements, old[item.attempt], item)
    _END_ATTEMPT.run(connection, [_attempt_row(item, now) for item in due])
    takes = _store_answers(connection, due, old)
    _END_ASK.run(connection, [row for item in due for row in _ask_rows(item, old, takes)])
    _leave_traces(connection, due, old)


def _reserved(
    connection: Connection, group: Sequence[Settlement], now: int
) -> dict[bytes, _Attempt]:
    old: dict[bytes, _Attempt] = {}
    for row in _OLD.rows(connection, [item.attempt for item in group]):
        attempt, state, kind, dataset, run, day, ceiling, money, tokens, traced, *rest = row
        dagster_run, partition, began, pos, key, take = rest
        found = old.get(attempt)
        if found is None:
            where, worst = (dataset, run, day), (money, 1, tokens)
            lasting = None
            if traced:
                lasting = tracing.Lasting(attempt, dagster_run, run, dataset, partition, began, now)
            found = _Attempt(state, kind, where, ceiling, worst, traced, lasting)
            old[attempt] = found
        if key is not None:  # without asks only where somebody damaged the file
            found.asks[key] = (pos, take)
    return old


def _leave_traces(
    connection: Connection, due: Sequence[Settlement], old: dict[bytes, _Attempt]
) -> None:
    """Let requests wait for a trace host; of those that the share leaves out, what failed."""
    found = [(item, old[item.attempt]) for item in due if old[item.attempt].traced]
    if not found:
        return
    chosen = [
        (item.attempt, one.traced)
        for item, one in found
        if one.traced == tracing.TRACED or not _is_good(item, one)
    ]
    tracing.leave(connection, [attempt for attempt, _ in chosen])
    left_out = [attempt for attempt, traced in chosen if traced != tracing.TRACED]
    tracing.mark_traced(connection, left_out)
    tracing.lengthen(connection, [one.lasting for _, one in found if one.lasting])


def _is_good(item: Settlement, old: _Attempt) -> bool:
    """Return whether nothing is to be said of a request but that it went well."""
    if item.state != "settled" or item.error_class or item.code:
        return False
    good = {one.answer_key for one in item.answers if one.verdict is Verdict.OK}
    return good.issuperset(old.asks)


def _due(group: Sequence[Settlement], old: dict[bytes, _Attempt]) -> list[Settlement]:
    """Return the settlement that stands for each attempt, in the order of the state machine.

    An attempt may be settled twice in one group: an answer that arrives while its run gives up on
    it stands, whichever came first.
    """
    due: dict[bytes, Settlement] = {}
    for item in group:
        reserved = old.get(item.attempt)
        if reserved is None:
            raise LookupError(f"Request {item.attempt.hex()} was settled and never reserved.")
        before = due.get(item.attempt)
        if item.state in _NEXT[before.state if before else reserved.state]:
            due[item.attempt] = item
    return list(due.values())


def _move(movements: Movements, old: _Attempt, item: Settlement) -> None:
    if item.state == "unknown":
        return  # counts at its worst case until somebody knows better
    if old.state != "released":
        movements.release(old.where, old.worst)
    if item.state == "settled":
        movements.settle(old.where, (item.cost or 0, 1, _tokens(item, old)))


def _tokens(item: Settlement, old: _Attempt) -> int:
    usage = item.usage
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return old.worst[2]
    return usage.prompt_tokens + usage.completion_tokens


def _attempt_row(item: Settlement, now: int) -> tuple[Any, ...]:
    usage = item.usage
    return (
        item.state,
        item.cost,
        item.cost_source,
        item.upstream_cost,
        item.is_byok,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        item.model_served,
        item.provider_served,
        item.remote_id,
        item.error_class,
        item.code,
        now,
        item.attempt,
    )


def _ask_rows(
    item: Settlement, old: dict[bytes, _Attempt], takes: dict[tuple[bytes, bytes], int]
) -> Iterable[tuple[Any, ...]]:
    answers = {answer.answer_key: answer for answer in item.answers}
    shares, damages = dict(item.shares), dict(item.damages)
    for key, (pos, planned) in old[item.attempt].asks.items():
        answer = answers.get(key)
        if answer is None:
            verdict = damages.get(key, item.state)
            yield verdict, shares.get(key), planned, item.attempt, pos
        else:
            take = takes[item.attempt, key]
            yield answer.verdict.value, answer.cost_share, take, item.attempt, pos


def _store_answers(
    connection: Connection, due: Sequence[Settlement], old: dict[bytes, _Attempt]
) -> dict[tuple[bytes, bytes], int]:
    """Store what was received; return the take of each (attempt, key)."""
    received = [(item, answer) for item in due for answer in item.answers]
    takes = _takes(connection, {answer.answer_key for _, answer in received})
    numbers = [
        _next_take(takes[answer.answer_key], index, answer, old[item.attempt])
        for index, (item, answer) in enumerate(received)
    ]
    answers = []
    bodies = []
    sealing = sealing_of(connection)
    for index, (item, answer) in enumerate(received):
        current = takes[answer.answer_key].index == index
        ceiling = old[item.attempt].ceiling
        row = _answer_row(item, answer, ceiling, numbers[index], current)
        answers.append(row)
        bodies.append((row[0], *payloads.encode(answer.text, row[0], sealing)))
    _RETIRE.run(
        connection,
        [(key,) for key, found in takes.items() if found.stored and found.index is not None],
    )
    _INSERT_ANSWER.run(connection, answers)
    _INSERT_PAYLOAD.run(connection, bodies)
    return {
        (item.attempt, answer.answer_key): number
        for (item, answer), number in zip(received, numbers, strict=True)
    }


def _takes(connection: Connection, keys: set[bytes]) -> dict[bytes, _Takes]:
    takes = {key: _Takes() for key in keys}
    for key, take, current, verdict, ceiling, payload in _STORED.rows(connection, keys):
        found = takes[key]
        found.last = max(found.last, take)
        if current:
            found.current, found.verdict, found.ceiling = take, verdict, ceiling
            found.purged = payload == "purged"
            found.stored = True
    return takes


def _next_take(takes: _Takes, index: int, answer: NewAnswer, attempt: _Attempt) -> int:
    """Number an answer and decide whether it is the current one from now on."""
    if answer.answer_key not in attempt.asks:
        raise LookupError(f"An answer to {answer.answer_key.hex()} came, which was not asked.")
    takes.last += 1
    if _becomes_current(takes, answer, attempt):
        takes.current, takes.index = takes.last, index
        takes.verdict, takes.ceiling, takes.purged = answer.verdict, attempt.ceiling, False
    return takes.last


def _becomes_current(takes: _Takes, answer: NewAnswer, attempt: _Attempt) -> bool:
    if attempt.kind == "verify":
        return False
    if takes.current is None:
        return True
    if answer.verdict is Verdict.FAILED and not takes.purged:
        return False  # it brought nothing, and what is there may have been paid for
    if takes.verdict == Verdict.TRUNCATED and (
        answer.verdict is not Verdict.TRUNCATED or attempt.ceiling > takes.ceiling
    ):
        return True  # serves more questions than the cut one: else it would be paid for again
    _, planned = attempt.asks[answer.answer_key]
    # a late answer does not push out one that was asked for after it
    return attempt.kind in _REPLACING and takes.current < planned


def _answer_row(
    item: Settlement, answer: NewAnswer, ceiling: int, take: int, current: bool
) -> tuple[Any, ...]:
    usage = answer.usage or item.usage
    return (
        new_id(),
        answer.answer_key,
        take,
        int(current),
        item.attempt,
        answer.verdict.value,
        answer.code,
        answer.finish_reason,
        ",".join(answer.flags) or None,
        ceiling,
        item.model_served,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        answer.cost_share,
    )
