"""Which requests are left for a trace host when they end, and how long their traces last.

Both are written by the transaction that settles a request: it waits in the outbox from then on, or
never stands there. Owns the ids of traces, and by which share good requests are chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.statements import Prepared, inserting

# of `attempts.traced`: its run wants no traces; it is sent; it is sent if it fails
UNTRACED, TRACED, IF_IT_FAILS = range(3)
_ASSET = "responses"

_INSERT_OUTBOX = inserting(schema.outbox, "attempt")


class Lasting(NamedTuple):
    """A request and how long it lasted (ms since the epoch); its trace lasts as long, or longer."""

    attempt: bytes
    run_id: str | None
    run_scope: str
    dataset: str
    partition: str | None
    started: int
    ended: int


@lru_cache(maxsize=1024)
def trace_id(run_id: str, dataset: str, partition: str | None) -> bytes:
    """Return the id of a trace.

    In hex it is what `Langfuse.create_trace_id(seed="RUN|DATASET/responses|PARTITION")` returns, so
    that a notebook finds the trace of a partition.
    """
    return sha256(f"{run_id}|{dataset}/{_ASSET}|{partition or ''}".encode()).digest()[:16]


def wanted(percent: float | None, dataset: str, row_keys: Iterable[str]) -> int:
    """Return what `attempts.traced` is for a request of these rows.

    `percent` is the share of rows without an error whose requests are sent, None where none are.
    """
    if percent is None:
        return UNTRACED
    if percent <= 0:
        return IF_IT_FAILS
    if percent >= 100 or any(share(dataset, one) < percent for one in row_keys):
        return TRACED
    return IF_IT_FAILS


def share(dataset: str, row_key: str) -> float:
    """Return a number from 0 up to 100 that is always the same for a row."""
    digest = sha256(f"{dataset}|{row_key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * 100


def leave(connection: Connection, requests: Sequence[bytes]) -> None:
    """Let requests that ended wait for a trace host."""
    _INSERT_OUTBOX.run(connection, [(one,) for one in requests])


def mark_traced(connection: Connection, requests: Sequence[bytes]) -> None:
    """Note that requests stand in the outbox although they were not meant to."""
    _MARK.run(connection, [(TRACED, one) for one in requests])


def lengthen(connection: Connection, requests: Iterable[Lasting]) -> None:
    """Let the traces of requests last as long as these do; those that change are sent again."""
    lasts: dict[tuple[str | None, str, str, str | None], tuple[int, int]] = {}
    for one in requests:
        started, ended = lasts.get(one[1:5], one[5:])
        lasts[one[1:5]] = min(started, one.started), max(ended, one.ended)
    rows = []
    for (dagster_run, scope, dataset, partition), (started, ended) in lasts.items():
        run = dagster_run or scope  # ledgers of before did not say which Dagster run
        trace = trace_id(run, dataset, partition)
        rows.append((trace, run, scope, dataset, partition, started, ended))
    _LENGTHEN.run(connection, rows)


def _lengthen(dialect: str) -> sa.ClauseElement:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert
    names = ("trace_id", "run_id", "run_scope", "dataset", "partition", "started", "ended")
    statement = insert(schema.traces).values({name: sa.bindparam(name) for name in names})
    old, new = schema.traces.c, statement.excluded
    earlier, later = new.started < old.started, new.ended > old.ended
    upsert: sa.ClauseElement = statement.on_conflict_do_update(
        index_elements=["trace_id"],
        set_={
            "started": sa.case((earlier, new.started), else_=old.started),
            "ended": sa.case((later, new.ended), else_=old.ended),
            "exported": sa.literal_column("0"),
        },
        where=earlier | later,
    )
    return upsert


def _mark(_: str) -> sa.ClauseElement:
    columns = schema.attempts.c
    changed: tuple[Any, Any] = (columns.traced, sa.bindparam("new_traced"))
    where = columns.id == sa.bindparam("attempt")
    return sa.update(schema.attempts).where(where).ordered_values(changed)


_LENGTHEN = Prepared("trace_id run_id run_scope dataset partition started ended", _lengthen)
_MARK = Prepared("new_traced attempt", _mark)
