"""What every test stands on: an empty environment, a data folder of its own, no network."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondine_dagster_tests.network_guard import NetworkGuard

pytest_plugins = [
    "ondine_dagster.simulator.pytest_plugin",
    "ondine_dagster_tests.quick_databases",
    "ondine_dagster_tests.workbench",
    "ondine_dagster_tests.postgres",
]

# Where the tests are that take seconds each. They come first, so that at the end of a run no worker
# is left alone with a long one.
_LONG = ("end_to_end", "test_docs.py", "test_dg.py", "cli", "assets")
_HERE = Path(__file__).parent

_FOREIGN_PREFIXES = ("ONDINE_", "DAGSTER_", "LANGFUSE_", "OTEL_")
_FOREIGN_ENDINGS = ("_API_KEY", "_PROXY")


def _is_foreign(variable: str) -> bool:
    """Return whether `variable` could make a test depend on who runs it."""
    name = variable.upper()
    return name.startswith(_FOREIGN_PREFIXES) or name.endswith(_FOREIGN_ENDINGS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long tests first; otherwise the order stays."""

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(_HERE).parts[0]
        return _LONG.index(room) if room in _LONG else len(_LONG)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return this test's data folder; keys, proxies and settings of the person are gone.

    Child processes inherit it. The folder does not exist yet, as on a new machine.
    """
    for variable in filter(_is_foreign, list(os.environ)):
        monkeypatch.delenv(variable)
    folder = tmp_path / "data"
    monkeypatch.setenv("ONDINE_DATA_DIR", str(folder))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
    return folder


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let SIGINT interrupt: a run of the tests that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def _installed_guard() -> NetworkGuard:
    guard = NetworkGuard()
    guard.install()
    return guard


@pytest.fixture(autouse=True)
def network_guard(_installed_guard: NetworkGuard) -> Iterator[NetworkGuard]:
    """Fail the test when it tries to leave the machine, even if the error is swallowed."""
    _installed_guard.refused.clear()
    _installed_guard.active = True
    yield _installed_guard
    _installed_guard.active = False
    if _installed_guard.refused:
        pytest.fail("\n".join(_installed_guard.refused), pytrace=False)
