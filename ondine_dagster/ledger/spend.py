"""The counters of money, requests and tokens per scope and window.

Every attempt counts in two scopes (its dataset, everything) and four windows (run, day, month,
total), those stored at its reservation. Counters exist from the first attempt, so that a limit
declared later knows what was spent before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.schema import spend
from ondine_dagster.ledger.statements import Prepared

UNITS = ("usd", "requests", "tokens")
Amounts = tuple[int, int, int]  # picodollars, requests, tokens
Where = tuple[str, str, str]  # dataset, run scope, day
Cell = tuple[str, str, str]  # scope, window, unit


def counters(dataset: str, run_scope: str, day: str) -> Iterator[tuple[str, str]]:
    """Yield (scope, window) of every counter that an attempt moves."""
    for scope in (f"dataset:{dataset}", "all"):
        for window in (f"run:{run_scope}", f"day:{day}", f"month:{day[:7]}", "total"):
            yield scope, window


class Movements:
    """Adds up what a transaction moves."""

    def __init__(self) -> None:
        self._settled: dict[Where, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._reserved: dict[Where, list[int]] = defaultdict(lambda: [0, 0, 0])

    def reserve(self, where: Where, amounts: Amounts) -> None:
        """Count an open request at its worst case."""
        total = self._reserved[where]
        total[0] += amounts[0]
        total[1] += amounts[1]
        total[2] += amounts[2]

    def release(self, where: Where, amounts: Amounts) -> None:
        """Take a worst case back."""
        total = self._reserved[where]
        total[0] -= amounts[0]
        total[1] -= amounts[1]
        total[2] -= amounts[2]

    def settle(self, where: Where, amounts: Amounts) -> None:
        """Count what a request really used."""
        total = self._settled[where]
        total[0] += amounts[0]
        total[1] += amounts[1]
        total[2] += amounts[2]

    def cells(self) -> Mapping[Cell, list[int]]:
        """Return what was moved so far: settled and reserved of each counter."""
        totals: dict[Cell, list[int]] = defaultdict(lambda: [0, 0])
        for column, moved in enumerate((self._settled, self._reserved)):
            for where, amounts in moved.items():
                for scope, window in counters(*where):
                    for unit, amount in zip(UNITS, amounts, strict=True):
                        totals[scope, window, unit][column] += amount
        return totals

    def write(self, connection: Connection) -> None:
        """Move the counters."""
        moves = [(*cell, *moved) for cell, moved in self.cells().items() if any(moved)]
        _MOVE.run(connection, moves)


@contextmanager
def moving(connection: Connection) -> Iterator[Movements]:
    """Collect the movements of one transaction and write them at the end of the block."""
    movements = Movements()
    yield movements
    movements.write(connection)


def _upsert(dialect: str) -> sa.ClauseElement:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert
    names = ("scope", "window", "unit", "settled", "reserved")
    statement = insert(spend).values({name: sa.bindparam(name) for name in names})
    added = {name: spend.c[name] + statement.excluded[name] for name in ("settled", "reserved")}
    upsert: sa.ClauseElement = statement.on_conflict_do_update(
        index_elements=["scope", "window", "unit"], set_=added
    )
    return upsert


_MOVE = Prepared("scope window unit settled reserved", _upsert)
