"""The tables of the ledger as Arrow, for people who ask in SQL.

Owns how they look there: ids and keys as hex text, money as exact USD (`cost_usd`), times as
timestamps in UTC, `latency_ms` from reservation to settlement, and `call_index`, the number of a
request among those for its row (of an attempt: for the first of its rows), from 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import reader_engine

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "ledger"
_BATCH_ROWS = 50_000
_MONEY = ("cost", "upstream_cost", "reserved", "cost_share")
_TIMES = ("t_open", "t_end")
_USD = "_usd"


def mentioned_tables(query: str) -> list[str]:
    """Return the ledger's tables that a query may read: no others need to be loaded."""
    words = set(re.findall(r"\w+", query.lower()))
    return [name for name in _SELECTS if name in words] if SCHEMA in words else []


def ledger_table(path: Path, name: str) -> pa.Table:
    """Return `attempts`, `asks`, `answers` or `spend`; without rows where there is no ledger."""
    import pyarrow as pa

    select = _SELECTS[name]()
    columns = list(select.selected_columns)
    arrow = pa.schema([(column.name, _arrow_type(column)) for column in columns])
    batches = [
        pa.record_batch(
            [
                _array(cells, field.type)
                for cells, field in zip(zip(*rows, strict=True), arrow, strict=True)
            ],
            schema=arrow,
        )
        for rows in _batches(path, select)
    ]
    return pa.Table.from_batches(batches, schema=arrow)


def _batches(path: Path, select: sa.Select[Any]) -> Iterator[Sequence[sa.Row[Any]]]:
    if not path.exists():
        return
    with reader_engine(path).connect() as connection:
        found = connection.execution_options(yield_per=_BATCH_ROWS).execute(select)
        yield from found.partitions()


def _arrow_type(column: sa.ColumnElement[Any]) -> pa.DataType:
    import pyarrow as pa

    if column.name.endswith(_USD):
        return pa.decimal128(19, 12)  # every 64-bit number of picodollars fits
    if column.name in _TIMES:
        return pa.timestamp("ms", tz="UTC")
    if isinstance(column.type, sa.Boolean):
        return pa.bool_()
    return pa.int64() if isinstance(column.type, sa.Integer) else pa.string()


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_decimal(kind):
        whole = pa.array(cells, pa.int64()).cast(pa.decimal128(19, 0))
        # the same digits with the point twelve places further left
        return pa.Array.from_buffers(kind, len(whole), whole.buffers())
    if pa.types.is_string(kind):
        return pa.array([one.hex() if isinstance(one, bytes) else one for one in cells], kind)
    return pa.array(cells, kind)


def _in_usd(columns: Iterable[sa.Column[Any]]) -> list[sa.ColumnElement[Any]]:
    return [
        column.label(f"{column.name}{_USD}") if column.name in _MONEY else column
        for column in columns
    ]


def _attempts() -> sa.Select[Any]:
    attempts = schema.attempts.c
    first = _numbered(schema.asks.c.attempt, schema.asks.c.pos).subquery()
    latency = (attempts.t_end - attempts.t_open).label("latency_ms")
    joined = sa.select(*_in_usd(attempts), latency, first.c.call_index).outerjoin_from(
        schema.attempts, first, (first.c.attempt == attempts.id) & (first.c.pos == 0)
    )
    return joined.order_by(attempts.id)


def _asks() -> sa.Select[Any]:
    asks, attempts = schema.asks.c, schema.attempts.c
    numbered = _numbered(attempts.dataset, attempts.partition, *_in_usd(asks))
    return numbered.order_by(asks.attempt, asks.pos)


def _numbered(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select columns of the asks with their attempts, and the number among those for their row."""
    asks, attempts = schema.asks.c, schema.attempts.c
    # ids sort by time
    index = sa.func.row_number(type_=sa.Integer).over(
        partition_by=(attempts.dataset, asks.row_key), order_by=(asks.attempt, asks.pos)
    )
    return sa.select(*columns, index.label("call_index")).join_from(
        schema.asks, schema.attempts, asks.attempt == attempts.id
    )


def _answers() -> sa.Select[Any]:
    return sa.select(*_in_usd(schema.answers.c)).order_by(schema.answers.c.id)


def _spend() -> sa.Select[Any]:
    """Money and counts share two columns in the ledger; here each has its own."""
    spend = schema.spend.c
    money, amounts = spend.unit == "usd", (spend.settled, spend.reserved)
    return sa.select(
        spend.scope,
        spend.window,
        spend.unit,
        *(sa.case((money, amount)).label(f"{amount.name}{_USD}") for amount in amounts),
        *(sa.case((~money, amount)).label(amount.name) for amount in amounts),
    ).order_by(spend.scope, spend.window, spend.unit)


_SELECTS: dict[str, Callable[[], sa.Select[Any]]] = {
    "attempts": _attempts,
    "asks": _asks,
    "answers": _answers,
    "spend": _spend,
}
