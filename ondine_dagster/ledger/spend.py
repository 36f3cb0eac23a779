"""The counters of money, requests and tokens per scope and window.

Every attempt counts in two scopes (its dataset, everything) and four windows (run, day, month,
total), those stored at its reservation. Counters exist from the first attempt, so that a limit
declared later knows what was spent before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.schema import spend

UNITS = ("usd", "requests", "tokens")
Amounts = tuple[int, int, int]  # picodollars, requests, tokens
_Where = tuple[str, str, str]  # dataset, run scope, day


def counters(dataset: str, run_scope: str, day: str) -> Iterator[tuple[str, str]]:
    """Yield (scope, window) of every counter that an attempt moves."""
    for scope in (f"dataset:{dataset}", "all"):
        for window in (f"run:{run_scope}", f"day:{day}", f"month:{day[:7]}", "total"):
            yield scope, window


class Movements:
    """Adds up what a transaction moves, then writes it with one statement."""

    def __init__(self) -> None:
        self._settled: dict[_Where, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._reserved: dict[_Where, list[int]] = defaultdict(lambda: [0, 0, 0])

    def reserve(self, where: _Where, amounts: Amounts) -> None:
        """Count an open request at its worst case."""
        _add(self._reserved[where], amounts, 1)

    def release(self, where: _Where, amounts: Amounts) -> None:
        """Take a worst case back."""
        _add(self._reserved[where], amounts, -1)

    def settle(self, where: _Where, amounts: Amounts) -> None:
        """Count what a request really used."""
        _add(self._settled[where], amounts, 1)

    def write(self, connection: Connection) -> None:
        """Move the counters."""
        totals: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        for column, moved in enumerate((self._settled, self._reserved)):
            for where, amounts in moved.items():
                for scope, window in counters(*where):
                    for unit, amount in zip(UNITS, amounts, strict=True):
                        totals[scope, window, unit][column] += amount
        rows = [
            {"scope": scope, "window": window, "unit": unit, "settled": s, "reserved": r}
            for (scope, window, unit), (s, r) in totals.items()
            if s or r
        ]
        if rows:
            connection.execute(_upsert(connection), rows)


def _add(total: list[int], amounts: Amounts, sign: int) -> None:
    for index, amount in enumerate(amounts):
        total[index] += sign * amount


def _upsert(connection: Connection) -> sa.Insert:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(spend)
    return statement.on_conflict_do_update(
        index_elements=["scope", "window", "unit"],
        set_={
            "settled": spend.c.settled + statement.excluded.settled,
            "reserved": spend.c.reserved + statement.excluded.reserved,
        },
    )
