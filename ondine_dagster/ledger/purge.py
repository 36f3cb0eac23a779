"""Removes the texts of old answers; keys, outcomes and money stay.

In steps of about 50 ms, so that runs beside it hardly wait. A text that was removed must not be
found in the file: all are overwritten where they stand before the first is deleted, since SQLite
copies the neighbours of deleted rows to other pages and leaves what it copied behind. Cut short in
between, it is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.identity import id_at
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.steps import Steps

_a, _p, _t = schema.answers.c, schema.payloads.c, schema.attempts.c

# of the same length, so that the row stays where it is
_OVERWRITE = Prepared(
    "id_",
    lambda _: (
        sa.update(schema.payloads)
        .where(_p.answer == sa.bindparam("id_"))
        .ordered_values((_p.body, sa.func.zeroblob(sa.func.length(_p.body))))
    ),
)
_DELETE = Prepared(
    "id_", lambda _: sa.delete(schema.payloads).where(_p.answer == sa.bindparam("id_"))
)
_MARK = Prepared(
    "id_",
    lambda _: (
        sa.update(schema.answers)
        .where(_a.id == sa.bindparam("id_"))
        .ordered_values((_a.payload_state, sa.literal_column("'purged'")))
    ),
)


@dataclass(slots=True)
class Purged:
    """How many texts were removed, and the bytes that they took.

    `in_wal`: they are still in the file's WAL, as another program reads the ledger.
    """

    answers: int = 0
    bytes: int = 0
    in_wal: bool = False


def purge(database: Database, before_ms: int, dataset: str | None = None) -> Purged:
    """Remove the texts of answers that came before `before_ms` (ms since the epoch, UTC).

    Only those to requests of `dataset`, where one is named. Raises LedgerUnavailable; what was
    removed until then is marked.
    """
    before, done = id_at(before_ms), Purged()
    _each(database, _old("present", before, dataset), (_OVERWRITE, _MARK), done)
    _each(database, _old("purged", before, dataset), (_DELETE,), Purged())
    done.in_wal = not database.compact()
    return done


def _each(
    database: Database, texts: sa.Select[Any], changes: Sequence[Prepared], done: Purged
) -> None:
    """Make these changes to each text that a select yields, in steps, and count them."""
    last, steps = b"", Steps()
    while True:
        with database.write() as connection, steps.timed():
            connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
            found = connection.execute(texts.where(_p.answer > last).limit(steps.size)).all()
            for change in changes:
                change.run(connection, [(answer,) for answer, _ in found])
        if not found:
            return
        last = found[-1][0]
        done.answers += len(found)
        done.bytes += sum(length for _, length in found)


def _old(state: str, before: bytes, dataset: str | None) -> sa.Select[Any]:
    """Return a select of ids and sizes; ids sort by the time when their answers came."""
    statement = (
        sa.select(_p.answer, sa.func.length(_p.body))
        .join(schema.answers, _a.id == _p.answer)
        .where(_p.answer < before, _a.payload_state == state)
        .order_by(_p.answer)
    )
    if dataset is not None:
        statement = statement.join(schema.attempts, _t.id == _a.attempt).where(
            _t.dataset == dataset
        )
    return statement
