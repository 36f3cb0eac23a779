"""What the limits leave for the reservations of one transaction.

Every limit is checked before anything is recorded, and all of them or none are charged: settled +
reserved + unknown stay at or below every limit, whatever the number of processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.limits import EVERYTHING, Limit, scope_of
from ondine_dagster.ledger.records import Broke, RequestContext, Reservation
from ondine_dagster.ledger.spend import UNITS, Cell, Movements, counters
from ondine_dagster.ledger.statements import KeyedSelect
from ondine_dagster.ledger.totals import unknown_amounts

_l, _w = schema.limits.c, schema.spend.c
_LIMITS = KeyedSelect(
    lambda scopes: sa.select(_l.scope, _l.window_kind, _l.unit, _l.limit).where(
        _l.scope.in_(scopes)
    )
)
# the keys are scopes and windows together: both columns are looked up among them
_SPENT = KeyedSelect(
    lambda keys: sa.select(_w.scope, _w.window, _w.unit, _w.settled, _w.reserved).where(
        _w.scope.in_(keys), _w.window.in_(keys)
    )
)
_UNIT = {unit: index for index, unit in enumerate(UNITS)}


class Room:
    """The limits of one transaction, and how much of each is taken."""

    def __init__(
        self,
        connection: Connection,
        contexts: Sequence[RequestContext],
        movements: Movements,
        day: str,
    ) -> None:
        """`movements` are those of this transaction so far; `day` is its UTC day."""
        self._connection = connection
        self._contexts = contexts
        self._movements = movements
        self._day = day
        scopes = {scope_of(context.dataset) for context in contexts} | {EVERYTHING}
        self._declared = [Limit(*row) for row in _LIMITS.rows(connection, scopes)]
        self._limits: dict[int, tuple[tuple[Limit, Cell], ...]] = {}

    def take(self, item: Reservation) -> Broke | bool:
        """Return whether `item` may go, and charge it if so.

        True: it goes. False: not now, but requests that are open may give enough back. Broke: the
        limit would be passed even if none of them cost anything.
        """
        bound = self._bound(item.context)
        if not bound:
            return True
        need = (item.reserved, 1, item.reserved_tokens)
        tight = [
            (limit, cell)
            for limit, cell in bound
            if sum(self._spent[cell]) + need[_UNIT[limit.unit]] > limit.amount
        ]
        for limit, cell in tight:
            settled, unknown = self._spent[cell][0], self._unknown[cell]
            needed = need[_UNIT[limit.unit]]
            if settled + unknown + needed > limit.amount:
                return Broke(limit, cell[1], settled, unknown, needed)
        if tight:
            return False
        for limit, cell in bound:
            self._spent[cell][1] += need[_UNIT[limit.unit]]
        return True

    def _bound(self, context: RequestContext) -> tuple[tuple[Limit, Cell], ...]:
        """Return the limits that bind a request: the lowest of each window and unit."""
        found = self._limits.get(id(context))
        if found is None:
            scopes = {scope_of(context.dataset), EVERYTHING}
            lowest: dict[Cell, Limit] = {}
            for limit in (*context.limits, *self._declared):
                cell = limit.cell(context.run_scope, self._day)
                known = lowest.get(cell)
                if limit.scope in scopes and (known is None or limit.amount < known.amount):
                    lowest[cell] = limit
            found = tuple((limit, cell) for cell, limit in sorted(lowest.items()))
            self._limits[id(context)] = found
        return found

    @cached_property
    def _spent(self) -> Mapping[Cell, list[int]]:
        """Settled and reserved of each counter, with what this transaction has moved."""
        spent: dict[Cell, list[int]] = defaultdict(lambda: [0, 0])
        keys = {
            part
            for context in self._contexts
            for cell in counters(context.dataset, context.run_scope, self._day)
            for part in cell
        }
        for scope, window, unit, settled, reserved in _SPENT.rows(self._connection, keys):
            spent[scope, window, unit] = [settled, reserved]
        for cell, moved in self._movements.cells().items():
            spent[cell][0] += moved[0]
            spent[cell][1] += moved[1]
        return spent

    @cached_property
    def _unknown(self) -> Mapping[Cell, int]:
        """What requests of unknown outcome may have used; asked only when it is tight."""
        return unknown_amounts(self._connection)
