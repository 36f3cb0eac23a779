"""T5: does the ledger add up? Compares the counters with the requests they stand for."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.spend import UNITS, counters

_t, _s, _a = schema.attempts.c, schema.asks.c, schema.answers.c
_Cell = tuple[str, str, str]


def check(connection: Connection) -> list[str]:
    """Return one sentence per contradiction; empty where the ledger is sound."""
    connection.exec_driver_sql("BEGIN")  # one snapshot for all the questions below
    try:
        return [
            *_counter_problems(connection),
            *_repeated(connection, "open asks", schema.asks, _s.open),
            *_repeated(connection, "current answers", schema.answers, _a.current),
            *_unsettled_answers(connection),
        ]
    finally:
        connection.exec_driver_sql("ROLLBACK")


def _counter_problems(connection: Connection) -> list[str]:
    wanted = _audited(connection)
    found = {
        (row.scope, row.window, row.unit): (row.settled, row.reserved)
        for row in connection.execute(sa.select(schema.spend))
    }
    problems = []
    for cell in sorted(wanted.keys() | found.keys()):
        audit, counter = tuple(wanted.get(cell, (0, 0))), found.get(cell, (0, 0))
        if audit != counter:
            problems.append(
                f"{' '.join(cell)}: counters say settled {counter[0]}, reserved {counter[1]}; "
                f"the requests add up to {audit[0]} and {audit[1]}"
            )
    return problems


def _audited(connection: Connection) -> dict[_Cell, list[int]]:
    """Add the requests up as the counters should have them."""
    settled = sa.case((_t.state == "settled", 1), else_=0)
    counted = sa.case((_t.state.in_(["open", "unknown"]), 1), else_=0)
    # what a settled request used; without usage it stands at its worst case
    tokens = sa.func.coalesce(_t.prompt_tokens + _t.completion_tokens, _t.reserved_tokens)
    statement = sa.select(
        _t.dataset,
        _t.run_scope,
        _t.day,
        sa.func.sum(settled * sa.func.coalesce(_t.cost, 0)),
        sa.func.sum(settled),
        sa.func.sum(settled * tokens),
        sa.func.sum(counted * _t.reserved),
        sa.func.sum(counted),
        sa.func.sum(counted * _t.reserved_tokens),
    ).group_by(_t.dataset, _t.run_scope, _t.day)
    totals: dict[_Cell, list[int]] = defaultdict(lambda: [0, 0])
    for dataset, run_scope, day, *sums in connection.execute(statement):
        for scope, window in counters(dataset, run_scope, day):
            for index, unit in enumerate(UNITS):
                totals[scope, window, unit][0] += sums[index]
                totals[scope, window, unit][1] += sums[index + 3]
    return totals


def _repeated(
    connection: Connection, what: str, table: sa.Table, flag: sa.Column[int]
) -> list[str]:
    key = table.c.answer_key
    statement = sa.select(key, sa.func.count()).where(flag == 1).group_by(key)
    statement = statement.having(sa.func.count() > 1)
    return [
        f"question {found.hex()} has {count} {what}"
        for found, count in connection.execute(statement)
    ]


def _unsettled_answers(connection: Connection) -> list[str]:
    """An answer whose request is neither settled nor released for nothing would be unpaid."""
    statement = (
        sa.select(_a.id, _t.state)
        .join_from(schema.answers, schema.attempts, _a.attempt == _t.id)
        .where(_t.state.in_(["open", "unknown"]))
    )
    return [
        f"answer {found.hex()} belongs to a request that is {state}"
        for found, state in connection.execute(statement)
    ]
