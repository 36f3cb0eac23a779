"""A person in a folder without a project, and terminals that are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.cli.typing_person import Person, Terminal


@pytest.fixture
def person(
    tmp_path: Path, data_dir: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Person:
    """Return somebody in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Person(folder, simulator)


@pytest.fixture
def start(person: Person) -> Iterator[Callable[..., Terminal]]:
    """Start commands in the person's folder; those that still run are ended after the test."""
    with ExitStack() as stack:

        def make(*arguments: str) -> Terminal:
            terminal = Terminal(person.folder, *arguments)
            stack.callback(terminal.close)
            return terminal

        yield make
