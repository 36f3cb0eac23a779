"""The queue of requests that are to be traced: what waits, and what became of what was sent.

A request stands in it once for each of its settlements, written in the transaction of that; good
ones that the share leaves out never do. Nothing leaves it: a row says whether it waits, was
exported, was left out by a push with a smaller share, or was refused by the host.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.sealing import Unreadable, sealing_of
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.tracing import (
    IF_IT_FAILS,
    TRACED,
    Lasting,
    leave,
    lengthen,
    mark_traced,
)
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
_ASKED = (
    sa.select(
        _o.seq,
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
    .join_from(schema.outbox, schema.asks, _s.attempt == _o.attempt)
    .outerjoin(
        schema.answers,
        (_a.answer_key == _s.answer_key) & (_a.take == _s.take) & (_a.attempt == _s.attempt),
    )
    .outerjoin(schema.payloads, schema.HAS_TEXT)
    .where(_IS_WAITING, _o.seq.between(sa.bindparam("first"), sa.bindparam("last")))
    .order_by(_o.seq, _s.pos)
)
_MARK = Prepared(
    "new_exported first last",
    lambda _: (
        sa.update(schema.outbox)
        .where(_o.seq.between(sa.bindparam("first"), sa.bindparam("last")))
        .ordered_values((_o.exported, sa.bindparam("new_exported")))
    ),
)


@dataclass(frozen=True, slots=True)
class Status:
    """How many requests wait, were sent, left out or refused; when the oldest that waits ended.

    Times in ms. Those that a run's share left out count too, although they never waited.
    """

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
    for request in map(Request._make, connection.execute(statement).all()):
        size += request.request_bytes
        if found and size > most_bytes:
            break
        found.append(request)
    return found


def asked_rows(connection: Connection, requests: Sequence[Request]) -> Mapping[int, list[AskedRow]]:
    """Return the rows of each request of a window, by its place, with the answers they brought."""
    rows: dict[int, list[AskedRow]] = {}
    sealing = sealing_of(connection)
    ends = {"first": requests[0].seq, "last": requests[-1].seq}
    for place, *rest, answer, codec, body in connection.execute(_ASKED, ends).all():
        text = None
        if body is not None:
            try:  # not by `suppress`: there is one for every row
                text = payloads.decode(codec, body, answer, sealing)
            except Unreadable:  # its row says so where it is used
                text = None
        rows.setdefault(place, []).append(AskedRow(text, *rest))
    return rows


def mark(database: Database, requests: Sequence[Request], state: int) -> None:
    """Note what became of requests, in one transaction.

    Where the process dies before it, they are sent again, as the same spans.
    """
    rows = [(state, *ends) for ends in _runs([one.seq for one in requests])]
    with database.write() as connection:
        _MARK.run(connection, rows)


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of places (ascending) that follow one another."""
    first = last = places[0]
    for place in places[1:]:
        if place != last + 1:
            yield first, last
            first = place
        last = place
    yield first, last


def waiting_roots(connection: Connection, after: bytes, most: int) -> list[Root]:
    """Return root spans that are new, or longer than when they were sent, in order of their ids."""
    columns = (
        _r.trace_id,
        _r.run_id,
        _r.run_scope,
        _r.dataset,
        _r.partition,
        _r.started,
        _r.ended,
    )
    where = (_ROOT_IS_WAITING, _r.trace_id > after)
    statement = sa.select(*columns).where(*where).order_by(_r.trace_id).limit(most)
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
    never_queued = sa.select(sa.func.count()).where(_t.traced == IF_IT_FAILS, _t.t_end.is_not(None))
    counts = Counter({row[0]: row[1] for row in connection.execute(by_state)})
    if left_out := connection.execute(never_queued).scalar_one():
        counts[LEFT_OUT] += left_out
    value = connection.execute(
        sa.select(schema.properties.c.value).where(schema.properties.c.name == _LAST)
    ).scalar()
    last = json.loads(value) if value else {}
    return Status(
        counts=counts,
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
    after: bytes | None = b""
    while after is not None:
        with database.write() as connection:
            added, after = _add_untraced(connection, since_ms, after)
        queued += added
    with database.write() as connection:
        connection.execute(sa.update(schema.traces).where(_r.ended >= since_ms).values(exported=0))
    return queued


def _again(connection: Connection, first: int, last: int, since_ms: int) -> int:
    chosen = sa.select(_t.id).where(_t.t_end >= since_ms)
    statement = (
        sa.update(schema.outbox)
        .where(_o.seq.between(first, last), _o.attempt.in_(chosen))
        .values(exported=WAITING)
    )
    return int(connection.execute(statement).rowcount)


def _add_untraced(connection: Connection, since_ms: int, after: bytes) -> tuple[int, bytes | None]:
    """Queue some requests that were not to be traced; return how many, and the last one's id."""
    columns = (_t.id, _t.run_id, _t.run_scope, _t.dataset, _t.partition, _t.t_open, _t.t_end)
    statement = (
        sa.select(*columns)
        .where(_t.id > after, _t.traced != TRACED, _t.t_end >= since_ms)
        .order_by(_t.id)
        .limit(_STEP_ROWS)
    )
    found = [Lasting._make(row) for row in connection.execute(statement)]
    ids = [one.attempt for one in found]
    leave(connection, ids)
    mark_traced(connection, ids)
    lengthen(connection, found)
    return len(ids), ids[-1] if ids else None
