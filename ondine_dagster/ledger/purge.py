"""Removes the texts of old answers; keys, outcomes and money stay.

In steps of about 50 ms, so that runs beside it hardly wait. What is removed is overwritten in the
file: a text that was deleted must not be found there.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.identity import id_at
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.steps import Steps

_a, _p, _t = schema.answers.c, schema.payloads.c, schema.attempts.c

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
    """How many texts were removed, and the bytes that they took."""

    answers: int = 0
    bytes: int = 0


def purge(database: Database, before_ms: int, dataset: str | None = None) -> Purged:
    """Remove the texts of answers that came before `before_ms` (ms since the epoch, UTC).

    Only those to requests of `dataset`, where one is named. Raises LedgerUnavailable; what was
    removed until then is marked.
    """
    done, last, steps = Purged(), b"", Steps()
    while True:
        with database.write() as connection, steps.timed():
            connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
            found = _old(connection, last, id_at(before_ms), dataset, steps.size)
            ids = [(one,) for one, _ in found]
            _DELETE.run(connection, ids)
            _MARK.run(connection, ids)
        if not found:
            break
        last = found[-1][0]
        done.answers += len(found)
        done.bytes += sum(length for _, length in found)
    if done.answers:
        database.compact()
    return done


def _old(
    connection: Connection, after: bytes, before: bytes, dataset: str | None, most: int
) -> list[tuple[bytes, int]]:
    """Return ids and sizes of the next texts; ids sort by the time when their answers came."""
    statement = (
        sa.select(_p.answer, sa.func.length(_p.body))
        .where(_p.answer > after, _p.answer < before)
        .order_by(_p.answer)
        .limit(most)
    )
    if dataset is not None:
        statement = (
            statement.join(schema.answers, _a.id == _p.answer)
            .join(schema.attempts, _t.id == _a.attempt)
            .where(_t.dataset == dataset)
        )
    return [(row[0], row[1]) for row in connection.execute(statement)]
