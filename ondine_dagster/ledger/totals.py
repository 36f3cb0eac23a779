"""What a dataset has spent so far, from the counters."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema


@dataclass(frozen=True, slots=True)
class Spent:
    """Money (picodollars) and requests of one dataset since the ledger began.

    `reserved` is what open requests and those of unknown outcome may cost at most.
    """

    settled: int = 0
    reserved: int = 0
    requests: int = 0


def spent(connection: Connection, dataset: str) -> Spent:
    """Return the totals of a dataset."""
    table = schema.spend.c
    statement = sa.select(table.unit, table.settled, table.reserved).where(
        table.scope == f"dataset:{dataset}", table.window == "total"
    )
    found = {unit: (settled, reserved) for unit, settled, reserved in connection.execute(statement)}
    settled, reserved = found.get("usd", (0, 0))
    return Spent(settled, reserved, sum(found.get("requests", (0, 0))))
