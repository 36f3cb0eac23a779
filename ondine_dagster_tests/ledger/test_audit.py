"""T5: a sound ledger passes; each kind of damage is found, else the check could not fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.llm.provider import Verdict
from ondine_dagster_tests.ledger.builders import (
    answered,
    ask_and_answer,
    execute,
    go,
    problems,
    released,
    request,
    unknown,
)

DAMAGE = {
    "UPDATE spend SET settled = settled + 1 WHERE scope = 'all' AND unit = 'usd'": (
        "counters say settled 15, reserved 2000; the requests add up to 14 and 2000"
    ),
    "UPDATE spend SET reserved = 0 WHERE unit = 'requests'": "reserved 0",
    "UPDATE spend SET settled = 0 WHERE unit = 'tokens'": "tokens: counters say settled 0",
    "DELETE FROM spend WHERE scope = 'dataset:reviews'": "dataset:reviews",
    "INSERT INTO spend VALUES ('all', 'run:ghost', 'usd', 5, 0, 0)": "run:ghost",
    "UPDATE attempts SET cost = cost + 1 WHERE state = 'settled'": "the requests add up to 17",
    "UPDATE asks SET cost_share = cost_share + 1 WHERE verdict = 'ok'": "do not add up",
    "UPDATE attempts SET reserved = 0 WHERE state = 'unknown'": "add up to 14 and 1000",
    "UPDATE attempts SET day = '1999-01-01' WHERE state = 'settled'": "day:1999-01-01",
    "DELETE FROM attempts WHERE state = 'unknown'": "the requests add up to 14 and 1000",
    "UPDATE attempts SET state = 'released' WHERE state = 'open'": "has ended and still blocks",
    "UPDATE asks SET open = 1 WHERE verdict = 'truncated'": "has ended and still blocks",
    "UPDATE asks SET open = 0": "is open and does not block",
    "DELETE FROM asks WHERE open = 1": "is open and does not block",
    "UPDATE processes SET state = 'dead'": "is open and its process is dead",
    "UPDATE asks SET verdict = NULL WHERE verdict = 'unknown'": "its question does not say so",
    "UPDATE asks SET verdict = 'unknown' WHERE verdict = 'ok'": "is not of unknown outcome and",
    "UPDATE attempts SET state = 'unknown' WHERE state = 'settled'": "has not ended",
    "DELETE FROM payloads": "has lost its text",
    "UPDATE answers SET current = 0": "is answered and has no current answer",
    "DROP INDEX answers_current; UPDATE answers SET current = 1": "3 current answers",
    "DROP INDEX asks_open; UPDATE asks SET open = 1": "3 open asks",
}


@pytest.fixture
def full(path: Path) -> Iterator[Ledger]:
    """Return a ledger with requests in every state and a question that was answered twice."""
    ledger = Ledger(path)
    ask_and_answer(ledger, "a", verdict=Verdict.TRUNCATED)
    ledger.settle(answered(go(ledger, request("a", ceiling=200))))
    ledger.settle(released(go(ledger, request("b"))))
    ledger.settle(unknown(go(ledger, request("c"))))
    go(ledger, request("d"))
    ledger.settle(answered(go(ledger, request("a", kind="verify")), cost=0))
    yield ledger
    ledger.close()


def test_a_sound_ledger_has_no_problems(full: Ledger) -> None:
    assert problems(full.database) == []


def test_an_empty_ledger_has_no_problems(ledger: Ledger) -> None:
    assert problems(ledger.database) == []


@pytest.mark.parametrize(("damage", "finding"), DAMAGE.items())
def test_each_kind_of_damage_is_found(full: Ledger, damage: str, finding: str) -> None:
    for statement in damage.split("; "):
        execute(full.database, statement)
    found = problems(full.database)
    assert any(finding in problem for problem in found), found
