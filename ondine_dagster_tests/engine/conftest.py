from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.engine import retry
from ondine_dagster.engine.engine import _new_loop
from ondine_dagster.ledger import provider_state
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.harness import Harness

MakeHarness = Callable[..., Harness]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def make_harness(tmp_path: Path) -> Iterator[MakeHarness]:
    """Make harnesses; their ledgers are closed at the end of the test."""
    with ExitStack() as stack:

        def make(base_url: str, folder: str = "data", **llm: Any) -> Harness:
            return stack.enter_context(closing(Harness(tmp_path / folder, base_url, **llm)))

        yield make


@pytest.fixture
def harness(make_harness: MakeHarness, simulator: Simulator) -> Harness:
    """A harness for the running simulator."""
    return make_harness(simulator.base_url)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for milliseconds."""
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.002)


@pytest.fixture
def short_cooldowns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a provider that is out again at once."""
    monkeypatch.setattr(provider_state, "FIRST_COOLDOWN_MS", 1)
    monkeypatch.setattr(provider_state, "LONGEST_COOLDOWN_MS", 1)


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[list[Ledger]]:
    """Four open ledgers on one file, as of four processes."""
    with ExitStack() as stack:
        path = tmp_path / "ledger.sqlite"
        yield [stack.enter_context(closing(Ledger(path))) for _ in range(4)]


@pytest.fixture
def ledger(ledgers: list[Ledger]) -> Ledger:
    return ledgers[0]


@pytest.fixture(params=[_new_loop, asyncio.new_event_loop], ids=["engine", "asyncio"])
def new_loop(request: pytest.FixtureRequest) -> LoopFactory:
    """Both loops: the engine takes uvloop where it is there."""
    factory: LoopFactory = request.param
    return factory
