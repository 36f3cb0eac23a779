"""Fixtures for tests that need a provider.

A project takes them with `pytest_plugins = ["ondine_dagster.simulator.pytest_plugin"]` in its
`conftest.py`. Importing this module starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ondine_dagster.simulator.server import Simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A running simulator with an empty bill, on a port of its own."""
    with Simulator() as running:
        yield running


@pytest.fixture
def simulator_factory() -> Iterator[Callable[..., Simulator]]:
    """Start simulators with settings of the test's choice; all are stopped at its end.

    Takes the arguments of `Simulator` and returns it running.
    """
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(Simulator(*args, **settings))
