"""The limits in force: what a scope may use in a window, in one unit.

Owns the table `limits`: who declared what, and which counter a limit binds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.schema import limits, spend

WindowKind = Literal["run", "day", "month", "total"]
Unit = Literal["usd", "requests", "tokens"]
EVERYTHING = "all"


def scope_of(dataset: str) -> str:
    """Return the scope of one dataset's limits and counters; `EVERYTHING` is that of all."""
    return f"dataset:{dataset}"


@dataclass(frozen=True, slots=True, order=True)
class Limit:
    """The most that `scope` may use in each window of a kind (picodollars, requests or tokens)."""

    scope: str
    window: WindowKind
    unit: Unit
    amount: int

    def window_of(self, run_scope: str, day: str) -> str:
        """Return the window that an attempt of this run and UTC day falls in."""
        if self.window == "run":
            return f"run:{run_scope}"
        if self.window == "day":
            return f"day:{day}"
        return f"month:{day[:7]}" if self.window == "month" else "total"

    def cell(self, run_scope: str, day: str) -> tuple[str, str, str]:
        """Return scope, window and unit of the counter that this limit binds."""
        return self.scope, self.window_of(run_scope, day), self.unit


def declare(connection: Connection, scope: str, declared: Iterable[Limit]) -> None:
    """Replace the limits of `scope`; those that are declared no more are gone.

    A limit that was changed may be warned about again.
    """
    wanted = set(declared)
    if set(in_force(connection, {scope})) == wanted:
        return
    connection.execute(sa.delete(limits).where(limits.c.scope == scope))
    rows = [
        {
            "scope": one.scope,
            "window_kind": one.window,
            "unit": one.unit,
            "limit": one.amount,
            "declared_at": now_ms(),
        }
        for one in sorted(wanted)
    ]
    if rows:
        connection.execute(sa.insert(limits), rows)
    connection.execute(sa.update(spend).where(spend.c.scope == scope).values(warned=0))


def in_force(connection: Connection, scopes: Iterable[str]) -> list[Limit]:
    """Return the limits that the ledger holds for these scopes."""
    table = limits.c
    found = connection.execute(
        sa.select(table.scope, table.window_kind, table.unit, table.limit).where(
            table.scope.in_(list(scopes))
        )
    )
    return [Limit(*row) for row in found]
