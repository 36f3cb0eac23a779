"""Which questions need no request: what the ledger holds of them, without reading any answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.ledger.lookup import standing
from ondine_dagster.ledger.statements import KeyedSelect
from ondine_dagster.llm.provider import Verdict

_a, _t = schema.answers.c, schema.attempts.c


def _answers(keys: list[sa.BindParameter[Any]]) -> sa.Select[Any]:
    return (
        sa.select(_a.answer_key, _a.verdict, _a.ceiling, _t.base_url)
        .join_from(schema.answers, schema.attempts, _t.id == _a.attempt)
        # a literal, not a parameter: only so can the database use the partial index
        .where(_a.answer_key.in_(keys), _a.current == sa.literal_column("1"))
    )


_ANSWERS = KeyedSelect(_answers)


class Cover(StrEnum):
    """What stands in the place of a request, or before it."""

    PAID = "paid"  # answered, or failed for good
    CUT = "cut"  # answered under a lower ceiling, and cut off there: asked again
    ASKING = "asking"  # somebody is asking right now
    HELD = "held"  # too many requests of unknown outcome: a person resolves them


class Covered(NamedTuple):
    """What the ledger holds of a question; `base_url` is the server that answered it."""

    cover: Cover
    base_url: str | None = None


def covered(
    connection: Connection | None, keys: Collection[bytes], *, ceiling: int, max_unknown: int
) -> dict[bytes, Covered]:
    """Return what the ledger holds of these questions; those that it does not know are left out.

    `ceiling` is the highest one that is asked for, `max_unknown` how many requests of unknown
    outcome still let a question be asked. Without a connection there is no ledger yet.
    """
    found: dict[bytes, Covered] = {}
    if connection is None or not keys:
        return found
    for key, verdict, asked, base_url in _ANSWERS.rows(connection, keys):
        cut = verdict == Verdict.TRUNCATED and asked < ceiling
        found[key] = Covered(Cover.CUT if cut else Cover.PAID, base_url)
    waiting = [key for key in keys if key not in found or found[key].cover is Cover.CUT]
    stands = standing(connection, waiting)
    for key, unknown in stands.unknown.items():
        if unknown > max_unknown:
            found[key] = Covered(Cover.HELD)
    return found | dict.fromkeys(stands.open, Covered(Cover.ASKING))


@contextmanager
def reading(path: Path) -> Iterator[Connection | None]:
    """Open the ledger to read it; None where there is none yet, and none is made.

    Nor is there one in a file without tables: a process is making it, or died while it did.
    """
    if not path.exists():
        yield None
        return
    with reader_engine(path).connect() as connection:
        made = sa.inspect(connection).has_table(schema.attempts.name)
        yield connection if made else None
