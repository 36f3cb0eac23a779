"""The ledger as people see it in SQL: every request with its model, tokens, money and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Settlement
from ondine_dagster.llm.provider import Usage
from ondine_dagster.storage.ledger_tables import ledger_table
from ondine_dagster_tests.ledger.builders import answered, execute, go, released, request


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an open ledger."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def attempts(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the rows of `ledger.attempts`."""
    rows: list[dict[str, Any]] = ledger_table(ledger.database.path, "attempts").to_pylist()
    return rows


@pytest.mark.behaviour("P-8")
def test_every_request_shows_who_answered_what_it_used_and_what_it_cost(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    settlement = replace(
        answered(item, cost=1_500_000),
        cost_source="provider",
        usage=Usage(30, 20, cached_tokens=10, reasoning_tokens=5, cache_write_tokens=4),
        remote_id="gen-1",
        provider_served="Fireworks",
        upstream_cost=2_000_000,
        is_byok=True,
    )
    ledger.settle(settlement)
    execute(ledger.database, "UPDATE attempts SET t_end = t_open + 1234")
    (row,) = attempts(ledger)
    shown = {
        "remote_id": "gen-1",
        "model_requested": "m",
        "model_served": "m-2024",
        "provider_served": "Fireworks",
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "reasoning_tokens": 5,
        "cached_tokens": 10,
        "cache_write_tokens": 4,
        "cost_usd": Decimal("0.0000015"),
        "upstream_cost_usd": Decimal("0.000002"),
        "is_byok": True,
        "cost_source": "provider",
        "latency_ms": 1234,
        "call_index": 1,
        "state": "settled",
    }
    assert {name: row[name] for name in shown} == shown


@pytest.mark.behaviour("P-8")
def test_what_nobody_knows_is_null_and_not_nothing(ledger: Ledger) -> None:
    go(ledger, request("open"))
    item = go(ledger, request("bare", row_key="r2"))
    ledger.settle(Settlement(item.attempt, "unknown"))
    opened, unknown = attempts(ledger)
    for row in (opened, unknown):
        for name in ("cost_usd", "upstream_cost_usd", "is_byok", "cost_source", "prompt_tokens"):
            assert row[name] is None
    assert opened["latency_ms"] is None
    assert (opened["state"], unknown["state"]) == ("open", "unknown")


def test_the_requests_of_each_row_are_numbered(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.settle(released(go(ledger, request("a", row_key="r1"))))
    ledger.settle(released(go(ledger, request("b", row_key="r2"))))
    ledger.settle(released(go(ledger, request("a", row_key="r1", dataset="other"))))
    assert [row["call_index"] for row in attempts(ledger)] == [1, 2, 3, 1, 1]


def test_a_request_for_several_rows_is_one_row(ledger: Ledger) -> None:
    ledger.settle(answered(go(ledger, request("a", "b", "c"))))
    assert len(attempts(ledger)) == 1


def test_the_types_are_those_of_a_full_table_where_there_are_no_requests(tmp_path: Path) -> None:
    schema = ledger_table(tmp_path / "none.sqlite", "attempts").schema
    assert schema.field("latency_ms").type == pa.int64()
    assert schema.field("call_index").type == pa.int64()
    assert schema.field("is_byok").type == pa.bool_()
    assert schema.field("upstream_cost_usd").type == pa.decimal128(19, 12)
