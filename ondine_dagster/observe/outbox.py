"""The queue of requests whose run wants traces: what waits, and what became of what was sent.

A request stands in it once for each of its settlements, written in the transaction of that. Nothing
leaves it: a row says whether it waits, was exported, was left out, or was refused by the host.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.sealing import Unreadable, sealing_of
from ondine_dagster.ledger.statements import KeyedSelect, Prepared
from ondine_dagster.observe.requests import AskedRow, Request, Root

WAITING, EXPORTED, LEFT_OUT, REFUSED = range(4)
_LAST = "traces.last_push"
_STEP_ROWS = 5_000
_o, _t, _s = schema.outbox.c, schema.attempts.c, schema.asks.c
_a, _p, _r = schema.answers.c, schema.payloads.c, schema.traces.c
# literals, not parameters: only so can the database use the partial indexes
_IS_WAITING: sa.ColumnElement[bool] = sa.literal_column("outbox.exported = 0")
_ROOT_IS_WAITING: sa.ColumnElement[bool] = sa.literal_column("traces.exported = 0")

# in the order of the fields of Request
_REQUEST_COLUMNS = [
    schema.attempts.c[name]
    for name in (
        "id kind state dataset run_scope run_id number provider provider_served base_url "
        "model_requested model_served ceiling cost_source partition request_bytes cost "
        "prompt_tokens completion_tokens cached_tokens cache_write_tokens reasoning_tokens "
        "remote_id class code t_open t_end"
    ).split()
]
# what is asked for with its verdict, and the answer that this very request brought
_ASKED = KeyedSelect(
    lambda ids: (
        sa.select(
            _s.attempt,
            _s.pos,
            _s.row_key,
            _s.answer_key,
            _s.verdict,
            _s.cost_share,
            _a.code,
            _a.finish_reason,
            _a.flags,
            _p.answer,
            _p.codec,
            _p.body,
        )
        .select_from(schema.asks)
        .outerjoin(
            schema.answers,
            (_a.answer_key == _s.answer_key) & (_a.take == _s.take) & (_a.attempt == _s.attempt),
        )
        .outerjoin(schema.payloads, _p.answer == _a.id)
        .where(_s.attempt.in_(ids))
        .order_by(_s.attempt, _s.pos)
    )
)
_MARK = Prepared(
    "new_exported seq_",
    lambda _: (
        sa.update(schema.outbox)
        .where(_o.seq == sa.bindparam("seq_"))
        .ordered_values((_o.exported, sa.bindparam("new_exported")))
    ),
)
_ROOTS = KeyedSelect(
    lambda ids: sa.select(_r.trace_id, _r.started, _r.ended).where(_r.trace_id.in_(ids))
)


# a request of which nothing is to be said but that it went well
_IS_GOOD = (
    (_t.state == "settled")
    & _t["class"].is_(None)
    & _t.code.is_(None)
    & ~sa.exists().where(_s.attempt == _t.id, _s.verdict != "ok")
)
_ROOTS_OF_WAITING = (
    sa.select(
        _t.run_id,
        _t.run_scope,
        _t.dataset,
        _t.partition,
        sa.func.min(_t.t_open),
        sa.func.max(_t.t_end),
    )
    .join_from(schema.outbox, schema.attempts, _o.attempt == _t.id)
    .where(_IS_WAITING)
    .group_by(_t.run_id, _t.run_scope, _t.dataset, _t.partition)
)


@dataclass(frozen=True, slots=True)
class Status:
    """How many requests stand in the outbox by state; when the oldest that waits ended (ms)."""

    counts: Mapping[int, int]
    oldest_waiting_ms: int | None
    last_push_ms: int | None
    trouble: str | None


def window(connection: Connection, most: int, most_bytes: int) -> list[Request]:
    """Return the next requests that wait, oldest first, without texts.

    At least one where any waits, at most `most`, and no more than `most_bytes` of prompts.
    """
    statement = (
        sa.select(_o.seq, *_REQUEST_COLUMNS)
        .join_from(schema.outbox, schema.attempts, _o.attempt == _t.id)
        .where(_IS_WAITING)
        .order_by(_o.seq)
        .limit(most)
    )
    found: list[Request] = []
    size = 0
    for row in connection.execute(statement):
        request = Request._make(row)
        size += request.request_bytes
        if found and size > most_bytes:
            break
        found.append(request)
    return found


def asked_rows(
    connection: Connection, requests: Iterable[Request]
) -> Mapping[bytes, list[AskedRow]]:
    """Return the rows of each request, by its id, with the answers that it brought."""
    rows: dict[bytes, list[AskedRow]] = {}
    sealing = sealing_of(connection)
    for row in _ASKED.rows(connection, [one.id for one in requests]):
        attempt, *rest, answer, codec, body = row
        text = None
        with suppress(Unreadable):  # its row says so where it is used
            text = None if body is None else payloads.decode(codec, body, answer, sealing)
        rows.setdefault(attempt, []).append(AskedRow._make((text, *rest)))
    return rows


def mark(
    database: Database, requests: Sequence[Request], state: int, roots: Sequence[Root]
) -> None:
    """Note what became of requests, and that their traces reach as far as they do.

    In one transaction: where the process dies before it, they are sent again, as the same spans.
    """
    with database.write() as connection:
        _MARK.run(connection, [(state, one.seq) for one in requests])
        known = {
            row[0]: row[1:] for row in _ROOTS.rows(connection, [one.trace_id for one in roots])
        }
        for root in roots:
            _widen(connection, root, known.get(root.trace_id))


def leave_out_good(database: Database) -> int:
    """Mark what waits and is no error as left out; return how many. No row of it is read."""
    with database.read() as connection:
        ends = sa.select(sa.func.min(_o.seq), sa.func.max(_o.seq)).where(_IS_WAITING)
        first, last = connection.execute(ends).one()
    left = 0
    for start in range(first or 0, (last or -1) + 1, _STEP_ROWS):
        here = _o.seq.between(start, start + _STEP_ROWS - 1)
        with database.write() as connection:
            found = connection.execute(_ROOTS_OF_WAITING.where(here)).all()
            for row in found:
                root = Root.of(*row)
                known = _ROOTS.rows(connection, [root.trace_id])
                _widen(connection, root, next((one[1:] for one in known), None))
            statement = sa.update(schema.outbox).where(
                here, _IS_WAITING, _o.attempt.in_(sa.select(_t.id).where(_IS_GOOD))
            )
            left += connection.execute(statement.values(exported=LEFT_OUT)).rowcount
    return left


def _widen(connection: Connection, root: Root, known: Sequence[int] | None) -> None:
    table = schema.traces
    if known is None:
        connection.execute(
            sa.insert(table).values(
                trace_id=root.trace_id,
                run_id=root.run_id,
                run_scope=root.run_scope,
                dataset=root.dataset,
                partition=root.partition,
                started=root.started,
                ended=root.ended,
            )
        )
        return
    started, ended = min(known[0], root.started), max(known[1], root.ended)
    if (started, ended) != tuple(known):
        connection.execute(
            sa.update(table)
            .where(_r.trace_id == root.trace_id)
            .values(started=started, ended=ended, exported=0)
        )


def waiting_roots(connection: Connection, most: int) -> list[Root]:
    """Return root spans that are new, or longer than when they were sent."""
    columns = (
        _r.trace_id,
        _r.run_id,
        _r.run_scope,
        _r.dataset,
        _r.partition,
        _r.started,
        _r.ended,
    )
    statement = sa.select(*columns).where(_ROOT_IS_WAITING).limit(most)
    return [Root(*row) for row in connection.execute(statement)]


def mark_roots(database: Database, roots: Iterable[Root]) -> None:
    """Note that root spans were sent as they are here."""
    with database.write() as connection:
        for root in roots:
            connection.execute(
                sa.update(schema.traces)
                .where(
                    _r.trace_id == root.trace_id,
                    _r.started == root.started,
                    _r.ended == root.ended,
                )
                .values(exported=1)
            )


def waiting(connection: Connection) -> int:
    """Return how many requests wait to be exported."""
    statement = sa.select(sa.func.count()).select_from(schema.outbox).where(_IS_WAITING)
    return int(connection.execute(statement).scalar_one())


def status(connection: Connection) -> Status:
    """Return what stands in the outbox, and how the last push went."""
    by_state = sa.select(_o.exported, sa.func.count()).group_by(_o.exported)
    oldest = (
        sa.select(_t.t_end)
        .join_from(schema.outbox, schema.attempts, _o.attempt == _t.id)
        .where(_IS_WAITING)
        .order_by(_o.seq)
        .limit(1)
    )
    value = connection.execute(
        sa.select(schema.properties.c.value).where(schema.properties.c.name == _LAST)
    ).scalar()
    last = json.loads(value) if value else {}
    return Status(
        counts=Counter({row[0]: row[1] for row in connection.execute(by_state)}),
        oldest_waiting_ms=connection.execute(oldest).scalar(),
        last_push_ms=last.get("at"),
        trouble=last.get("trouble"),
    )


def note_push(database: Database, trouble: str | None) -> None:
    """Remember when something was pushed, and what stood in the way."""
    value = json.dumps({"at": now_ms(), "trouble": trouble}).encode()
    table = schema.properties
    with database.write() as connection:
        connection.execute(sa.delete(table).where(table.c.name == _LAST))
        connection.execute(sa.insert(table).values(name=_LAST, value=value))


def queue_again(database: Database, since_ms: int) -> int:
    """Let every request that ended since then wait again, also of runs that wanted no traces.

    Returns how many. The spans have the same ids as before. In steps, so that runs go on beside it.
    """
    with database.read() as connection:
        last = connection.execute(sa.select(sa.func.max(_o.seq))).scalar() or 0
    queued = 0
    for first in range(1, last + 1, _STEP_ROWS):
        with database.write() as connection:
            queued += _again(connection, first, min(first + _STEP_ROWS - 1, last), since_ms)
    while True:
        with database.write() as connection:
            added = _add_untraced(connection, since_ms)
            if not added:
                connection.execute(
                    sa.update(schema.traces).where(_r.ended >= since_ms).values(exported=0)
                )
                return queued
        queued += added


def _again(connection: Connection, first: int, last: int, since_ms: int) -> int:
    chosen = sa.select(_t.id).where(_t.t_end >= since_ms)
    statement = (
        sa.update(schema.outbox)
        .where(_o.seq.between(first, last), _o.attempt.in_(chosen))
        .values(exported=WAITING)
    )
    return int(connection.execute(statement).rowcount)


def _add_untraced(connection: Connection, since_ms: int) -> int:
    """Queue some requests that no run wanted traces of; return how many."""
    ids = connection.execute(
        sa.select(_t.id).where(_t.traced == 0, _t.t_end >= since_ms).order_by(_t.id).limit(1000)
    ).scalars()
    values = [{"attempt": one} for one in ids]
    if values:
        connection.execute(sa.insert(schema.outbox), values)
        chosen = _t.id.in_([one["attempt"] for one in values])
        connection.execute(sa.update(schema.attempts).where(chosen).values(traced=1))
    return len(values)
