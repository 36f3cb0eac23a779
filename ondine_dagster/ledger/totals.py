"""What a dataset has spent so far, from the counters, and what is not settled yet."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema

_t = schema.attempts.c


@dataclass(frozen=True, slots=True)
class Spent:
    """Money (picodollars), requests and tokens of one dataset in one window.

    `reserved` is what open requests and those of unknown outcome may cost at most; `requests`
    counts them too, and not those that the provider refused for free. `tokens` are settled ones.
    """

    settled: int = 0
    reserved: int = 0
    requests: int = 0
    tokens: int = 0


def spent(connection: Connection, dataset: str, window: str = "total") -> Spent:
    """Return the totals of a dataset since the ledger began, or in a window (`run:<scope>`)."""
    table = schema.spend.c
    statement = sa.select(table.unit, table.settled, table.reserved).where(
        table.scope == f"dataset:{dataset}", table.window == window
    )
    found = {unit: (settled, reserved) for unit, settled, reserved in connection.execute(statement)}
    settled, reserved = found.get("usd", (0, 0))
    tokens, _ = found.get("tokens", (0, 0))
    return Spent(settled, reserved, sum(found.get("requests", (0, 0))), tokens)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Requests without a known end, and what they may cost at most (picodollars)."""

    open_requests: int = 0
    open_money: int = 0
    unknown_requests: int = 0
    unknown_money: int = 0


def unsettled(connection: Connection, dataset: str) -> Unsettled:
    """Return what is open or of unknown outcome for a dataset."""
    statement = (
        sa.select(_t.state, sa.func.count(), sa.func.sum(_t.reserved))
        # spelled out, so that SQLite uses the partial index
        .where(sa.literal_column("state IN ('open', 'unknown')"), _t.dataset == dataset)
        .group_by(_t.state)
    )
    found = {state: (count, money) for state, count, money in connection.execute(statement)}
    return Unsettled(*found.get("open", (0, 0)), *found.get("unknown", (0, 0)))
