"""T5: does the ledger add up? Compares the counters with the requests they stand for.

Also looks for what the transactions never leave behind: questions blocked by nobody, unknown
outcomes that are not counted, answers without text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

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
            *_listed(connection),
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


def _listed(connection: Connection) -> list[str]:
    """Return a sentence for every id that one of the questions below finds."""
    return [
        sentence.format(found.hex())
        for sentence, statement in _CONTRADICTIONS.items()
        for found in connection.execute(statement).scalars()
    ]


def _asks(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return a select of the requests of asks."""
    joined = sa.select(_t.id).join_from(schema.asks, schema.attempts, _s.attempt == _t.id)
    return joined.where(*where).distinct()


# unknown where a person or a look-up settled a request
_shared = sa.func.count(_s.cost_share) == sa.func.count()
_open_asks = sa.select(_s.pos).where(_s.attempt == _t.id, _s.open == 1)
_verdict = sa.func.coalesce(_s.verdict, "")
# each would pay twice, block a question for ever, or lose an answer
_CONTRADICTIONS: dict[str, sa.Select[Any]] = {
    "request {} has ended and still blocks its question": _asks(_s.open == 1, _t.state != "open"),
    "request {} is open and does not block its question": sa.select(_t.id).where(
        _t.state == "open", ~sa.exists(_open_asks)
    ),
    "request {} is open and its process is dead": sa.select(_t.id)
    .join_from(schema.attempts, schema.processes, schema.processes.c.id == _t.process)
    .where(_t.state == "open", schema.processes.c.state == "dead"),
    "request {} is of unknown outcome and its question does not say so": _asks(
        _t.state == "unknown", _verdict != "unknown"
    ),
    "request {} is not of unknown outcome and its question says so": _asks(
        _t.state != "unknown", _verdict == "unknown"
    ),
    "answer {} belongs to a request that has not ended": sa.select(_a.id)
    .join_from(schema.answers, schema.attempts, _a.attempt == _t.id)
    .where(_t.state.in_(["open", "unknown"])),
    "request {} has a cost to which the shares of its questions do not add up": sa.select(_t.id)
    .join_from(schema.asks, schema.attempts, _s.attempt == _t.id)
    .where(_t.state == "settled")
    .group_by(_t.id, _t.cost)
    .having(sa.and_(_shared, sa.func.sum(_s.cost_share) != _t.cost)),
    "answer {} has lost its text": sa.select(_a.id)
    .outerjoin_from(schema.answers, schema.payloads, schema.payloads.c.answer == _a.id)
    .where(_a.payload_state == "present", schema.payloads.c.answer.is_(None)),
    "question {} is answered and has no current answer": sa.select(_a.answer_key)
    .join_from(schema.answers, schema.attempts, _a.attempt == _t.id)
    .where(_t.kind != "verify")
    .group_by(_a.answer_key)
    .having(sa.func.max(_a.current) == 0),
}
