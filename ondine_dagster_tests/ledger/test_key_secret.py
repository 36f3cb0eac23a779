"""When a ledger gets its secret: never while questions have plain keys, or may be about to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondine_dagster.ledger.key_secret import key_secret
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rekey import rekey
from ondine_dagster.settings import ENCRYPTION_KEY
from ondine_dagster_tests.ledger.builders import ask_and_answer, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def secret_at(path: Path, *, any_key: bool = False) -> bytes | None:
    """Return the secret that a process sees which opens the ledger now."""
    ledger = Ledger(path, any_key=any_key)
    try:
        with ledger.database.read() as connection:
            return key_secret(connection)
    finally:
        ledger.close()


def test_a_new_ledger_has_it_under_a_key_only_and_keeps_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert secret_at(path) is None
    monkeypatch.setenv(ENCRYPTION_KEY, "the first key of all")
    secret = secret_at(path)
    assert secret is not None and len(secret) == 32
    assert secret_at(path) == secret
    monkeypatch.setenv(ENCRYPTION_KEY, "another key than that")
    assert secret_at(path, any_key=True) == secret, "whatever becomes of the key"


def test_not_beside_a_process_that_may_be_about_to_ask(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would ask under the plain key what others ask under the secret: both would pay."""
    other = Ledger(path)
    monkeypatch.setenv(ENCRYPTION_KEY, "the first key of all")
    assert secret_at(path) is None
    other.close()
    assert secret_at(path) is not None


def test_a_ledger_with_requests_gets_it_from_rekey(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path)
    for name in range(3):
        ask_and_answer(ledger, name)
    before = rows(ledger.database, "SELECT answer_key FROM asks ORDER BY attempt")
    ledger.close()
    monkeypatch.setenv(ENCRYPTION_KEY, "the first key of all")
    assert secret_at(path) is None
    ledger = Ledger(path, any_key=True)
    rekey(ledger)
    after = rows(ledger.database, "SELECT answer_key FROM asks ORDER BY attempt")
    assert after == rows(ledger.database, "SELECT answer_key FROM answers ORDER BY attempt")
    assert set(after).isdisjoint(before)
    rekey(ledger)
    assert rows(ledger.database, "SELECT answer_key FROM asks ORDER BY attempt") == after
    ledger.close()
    assert secret_at(path) is not None
