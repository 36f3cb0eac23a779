"""What was spent so far, from the counters, and what is not settled yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.limits import scope_of
from ondine_dagster.ledger.spend import UNITS, Cell, counters

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
        table.scope == scope_of(dataset), table.window == window
    )
    found = {unit: (settled, reserved) for unit, settled, reserved in connection.execute(statement)}
    settled, reserved = found.get("usd", (0, 0))
    tokens, _ = found.get("tokens", (0, 0))
    return Spent(settled, reserved, sum(found.get("requests", (0, 0))), tokens)


def dataset_names(connection: Connection) -> list[str]:
    """Return the datasets that have asked something, or were about to."""
    table = schema.datasets.c
    bound = connection.execute(sa.select(table.name)).scalars()
    counted = connection.execute(sa.select(schema.spend.c.scope).distinct()).scalars()
    prefix = scope_of("")
    asked = {one.removeprefix(prefix) for one in counted if one.startswith(prefix)}
    return sorted({*bound, *asked})


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


def unknown_amounts(connection: Connection) -> Mapping[Cell, int]:
    """Return what requests of unknown outcome may have used, for each counter that holds some."""
    statement = (
        sa.select(
            _t.dataset,
            _t.run_scope,
            _t.day,
            sa.func.sum(_t.reserved),
            sa.func.count(),
            sa.func.sum(_t.reserved_tokens),
        )
        # the second condition lets SQLite use the partial index
        .where(_t.state == "unknown", sa.literal_column("state IN ('open', 'unknown')"))
        .group_by(_t.dataset, _t.run_scope, _t.day)
    )
    unknown: dict[Cell, int] = defaultdict(int)
    for dataset, run_scope, day, *amounts in connection.execute(statement):
        for scope, window in counters(dataset, run_scope, day):
            for unit, amount in zip(UNITS, amounts, strict=True):
                unknown[scope, window, unit] += int(amount)  # PostgreSQL sums to a Decimal
    return unknown
