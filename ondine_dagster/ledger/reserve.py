"""T1: look up, and reserve what is not answered. Runs inside one write transaction.

Each item gets its own decision: a refusal of one never rolls back the group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.clock import now_ms, utc_day
from ondine_dagster.ledger.lookup import look_up, standing, usable
from ondine_dagster.ledger.records import Answer, Ask, Decision, Reservation
from ondine_dagster.ledger.room import Room
from ondine_dagster.ledger.spend import Movements
from ondine_dagster.ledger.statements import KeyedSelect, inserting
from ondine_dagster.ledger.tracing import wanted

# kinds that ask although an answer is there
_ASKS_ANYWAY = frozenset({"retry", "reask", "verify"})


_INSERT_ATTEMPT = inserting(
    schema.attempts,
    "id process kind dataset run_scope day partition provider identity base_url key_fp ceiling "
    "request_bytes reserved reserved_tokens price_version model_requested t_open run_id number "
    "traced",
    state="'open'",
)
_INSERT_ASK = inserting(schema.asks, "attempt pos answer_key row_key take", open="1")
_RECORDED = KeyedSelect(
    lambda ids: sa.select(schema.asks.c.attempt, schema.asks.c.answer_key).where(
        schema.asks.c.attempt.in_(ids)
    )
)
_PROCESS_STATE = KeyedSelect(
    lambda ids: sa.select(schema.processes.c.state).where(schema.processes.c.id.in_(ids))
)


def reserve(
    connection: Connection,
    process: bytes,
    group: Sequence[Reservation],
    movements: Movements,
    *,
    in_doubt: bool = False,
) -> list[Decision]:
    """Decide for every reservation of the group and record those that may go.

    `in_doubt`: the group may be in the ledger already, since its commit ended with an error; what
    is recorded goes and is not recorded again. Raises OndineError where this process counts as
    dead.
    """
    if not group:
        return []
    _refuse_the_buried(connection, process)
    keys = {ask.answer_key for item in group for ask in item.asks}
    recorded = _recorded(connection, group) if in_doubt else {}
    now = now_ms()
    contexts = list({id(item.context): item.context for item in group}.values())
    room = Room(connection, contexts, movements, utc_day(now))
    known = _Known(connection, keys, recorded, room)
    decisions = [known.decide(item) for item in group]
    _record(connection, process, group, decisions, known, movements, now)
    return decisions


def _refuse_the_buried(connection: Connection, process: bytes) -> None:
    """Nobody would ever reap the requests of a process that counts as dead."""
    if [row[0] for row in _PROCESS_STATE.rows(connection, [process])] != ["alive"]:
        raise OndineError(
            "This process counts as dead in the ledger: its lock file in `ledger.d` beside the "
            "ledger was removed while it ran. Nothing more is sent; run again, what was paid is "
            "kept."
        )


def _recorded(connection: Connection, group: Iterable[Reservation]) -> dict[bytes, set[bytes]]:
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for attempt, key in _RECORDED.rows(connection, [item.attempt for item in group]):
        found[attempt].add(key)
    return found


class _Known:
    """What the ledger and the items before this one say about the keys of a group."""

    def __init__(
        self,
        connection: Connection,
        keys: set[bytes],
        recorded: Mapping[bytes, set[bytes]],
        room: Room,
    ) -> None:
        self.answers = look_up(connection, keys)
        self.recorded = recorded
        self._room = room
        found = standing(connection, keys)
        self._open, self._unknown = found.open, found.unknown

    def decide(self, item: Reservation) -> Decision:
        decision = Decision()
        recorded = self.recorded.get(item.attempt)
        for key, ask in {ask.answer_key: ask for ask in item.asks}.items():
            if recorded is None:
                self._decide_one(decision, item, ask)
            elif key in recorded:
                decision.go.append(key)
            else:  # was not free a moment ago: the caller looks again
                decision.taken.append(key)
        if decision.go and recorded is None:
            self._decide_limits(decision, item)
        return decision

    def _decide_limits(self, decision: Decision, item: Reservation) -> None:
        """Take the request back where a limit leaves no room for it."""
        found = self._room.take(item)
        if found is True:
            return
        self._open.difference_update(decision.go)
        decision.go.clear()
        if found is False:
            decision.wait = True
        else:
            decision.broke = found

    def _decide_one(self, decision: Decision, item: Reservation, ask: Ask) -> None:
        context, key = item.context, ask.answer_key
        answer = self.answers.get(key)
        if answer and usable(answer, context.ceiling) and _serves(answer, item.kind, ask):
            decision.hits[key] = answer
            return
        count = self._unknown.get(key, 0)
        allowed = 0 if context.hold_unknown else context.max_unknown
        if key in self._open:
            decision.taken.append(key)
        elif count > allowed:
            decision.held[key] = count
        else:
            self._open.add(key)
            decision.go.append(key)

    def take(self, key: bytes) -> int:
        """Return the number that the answer will have, if no other comes before it."""
        answer = self.answers.get(key)
        return answer.take + 1 if answer else 1

    def kind(self, item: Reservation, decision: Decision) -> str:
        """Return the kind to record: a cut answer under a lower ceiling is asked for again."""
        if item.kind == "first" and self.answers and any(k in self.answers for k in decision.go):
            return "retry"
        return item.kind


def _serves(answer: Answer, kind: str, ask: Ask) -> bool:
    """Return whether an answer that is there makes the request needless."""
    if kind not in _ASKS_ANYWAY:
        return True
    return ask.instead_of is not None and ask.instead_of != answer.attempt


def _record(
    connection: Connection,
    process: bytes,
    group: Sequence[Reservation],
    decisions: Iterable[Decision],
    known: _Known,
    movements: Movements,
    now: int,
) -> None:
    day = utc_day(now)
    attempts: list[tuple[Any, ...]] = []
    asks: list[tuple[Any, ...]] = []
    for item, decision in zip(group, decisions, strict=True):
        if not decision.go or item.attempt in known.recorded:
            continue
        attempts.append(_attempt_row(process, known.kind(item, decision), item, now, day))
        asks += _ask_rows(item, decision, known)
        where = (item.context.dataset, item.context.run_scope, day)
        movements.reserve(where, (item.reserved, 1, item.reserved_tokens))
    _INSERT_ATTEMPT.run(connection, attempts)
    _INSERT_ASK.run(connection, asks)


def _attempt_row(
    process: bytes, kind: str, item: Reservation, now: int, day: str
) -> tuple[Any, ...]:
    context = item.context
    return (
        item.attempt,
        process,
        kind,
        context.dataset,
        context.run_scope,
        day,
        item.partition,
        context.provider,
        context.identity,
        context.base_url,
        item.key_fp,
        context.ceiling,
        item.request_bytes,
        item.reserved,
        item.reserved_tokens,
        context.price_version,
        context.model,
        now,
        context.run_id,
        item.number,
        wanted(context.trace_percent, context.dataset, (ask.row_key for ask in item.asks)),
    )


def _ask_rows(item: Reservation, decision: Decision, known: _Known) -> list[tuple[Any, ...]]:
    going = set(decision.go)
    rows = []
    for pos, ask in enumerate(item.asks):
        key = ask.answer_key
        if key in going:
            going.discard(key)  # a question that stands twice in one request is one ask
            rows.append((item.attempt, pos, key, ask.row_key, known.take(key)))
    return rows
