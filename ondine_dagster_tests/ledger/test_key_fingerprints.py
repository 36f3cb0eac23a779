"""A key has the same name in every process of one ledger, and money can be summed by it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.key_fingerprints import fingerprinter
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.storage.ledger_tables import ledger_table
from ondine_dagster_tests.ledger.builders import answered, go, released, request, value

KEY, OTHER = SecretStr("sk-canary-0123"), SecretStr("sk-canary-4567")


def test_a_key_has_one_fingerprint_on_a_ledger_for_ever(path: Path) -> None:
    first, second = Database(path), Database(path)
    found = fingerprinter(first)(KEY)
    assert len(found) == 8
    assert found == fingerprinter(first)(KEY) == fingerprinter(second)(KEY)
    assert found != fingerprinter(first)(OTHER)
    first.close()
    second.close()
    again = Database(path)
    assert fingerprinter(again)(KEY) == found
    again.close()


def test_those_who_begin_together_agree_on_one_secret(path: Path) -> None:
    databases = [Database(path) for _ in range(8)]
    together = threading.Barrier(len(databases))

    def name(database: Database) -> bytes:
        together.wait(30)
        return fingerprinter(database)(KEY)

    with ThreadPoolExecutor(len(databases)) as threads:
        assert len(set(threads.map(name, databases))) == 1
    assert value(databases[0], "SELECT count(*) FROM properties") == 1
    for database in databases:
        database.close()


def test_another_ledger_calls_the_same_key_something_else(tmp_path: Path) -> None:
    found = set()
    for folder in ("a", "b"):
        database = Database(tmp_path / folder / "ledger.sqlite")
        found.add(fingerprinter(database)(KEY))
        database.close()
    assert len(found) == 2


def test_without_a_key_the_ledger_is_not_touched(ledger: Ledger) -> None:
    fingerprinter(ledger.database)
    assert value(ledger.database, "SELECT count(*) FROM properties") == 0


@pytest.mark.behaviour("A-1")
def test_no_key_is_in_the_ledgers_files(ledger: Ledger) -> None:
    fingerprinter(ledger.database)(KEY)
    for file in ledger.path.parent.glob("ledger.sqlite*"):
        assert b"canary" not in file.read_bytes()


@pytest.mark.behaviour("B-3c")
def test_spending_per_key_can_be_queried(ledger: Ledger) -> None:
    name = fingerprinter(ledger.database)
    for number, (key, cost) in enumerate([(KEY, 30), (OTHER, 4), (KEY, 5), (None, 600)]):
        fingerprint = None if key is None else name(key)
        item = go(ledger, replace(request(number), key_fp=fingerprint))
        ledger.settle(answered(item, cost=cost * 10**6))
    ledger.settle(released(go(ledger, replace(request("free"), key_fp=name(OTHER)))))

    attempts = ledger_table(ledger.path, "attempts")  # duckdb finds it by its name
    assert attempts.num_rows == 5
    found = duckdb.sql(
        "SELECT key_fp, sum(cost_usd)::VARCHAR, count(*) FROM attempts GROUP BY key_fp"
    ).fetchall()
    assert {key: rest for key, *rest in found} == {
        name(KEY).hex(): ["0.000035000000", 2],
        name(OTHER).hex(): ["0.000004000000", 2],
        None: ["0.000600000000", 1],
    }
