"""A ledger per test, audited when the test has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster_tests.ledger.builders import problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger of this test is."""
    return tmp_path / "data" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """Return an open ledger; whatever a test did to it, it must add up in the end."""
    ledger = Ledger(path)
    yield ledger
    assert problems(ledger.database) == []
    ledger.close()
