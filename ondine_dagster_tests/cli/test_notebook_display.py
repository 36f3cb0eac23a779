"""The bar of a notebook: what it says, drawn no more often than needed; in plain text too."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ondine_dagster.cli import jupyter
from ondine_dagster.cli.jupyter import NotebookDisplay, in_notebook


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a kernel would show; test_jupyter.py has a real one."""
    drawn: list[dict[str, str]] = []

    def display(data: dict[str, str], **options: Any) -> Any:
        assert options == {"raw": True, "display_id": True}
        drawn.append(data)
        return SimpleNamespace(update=lambda data, raw: drawn.append(data))

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return drawn


def test_the_bar_follows_the_run_and_ends(
    drawn: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jupyter, "_EVERY_SECONDS", 0)
    progress = SimpleNamespace(done=7, requests=7, retries=0)
    step = SimpleNamespace(progress=progress, finished=0, red=0)
    monkeypatch.setattr(NotebookDisplay, "_lines", lambda *_: iter(()))
    with NotebookDisplay() as shown:
        shown.doing("<snapshot>")
        shown.refresh()
        shown.expect(1, 20)
        shown.asking(step)  # type: ignore[arg-type]
        shown.refresh()
        shown.say("[bold]a line[/bold]")
    assert [one["text/plain"] for one in drawn] == [
        "starting",
        "<snapshot>",
        "<snapshot>: 7 of 20 rows",
        "ended: 7 of 20 rows",
    ]
    assert "&lt;snapshot&gt;" in drawn[1]["text/html"]
    assert '<progress value="7" max="20">' in drawn[-1]["text/html"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("[bold]a line[/bold]\n", "")


def test_it_is_not_drawn_at_every_step(drawn: list[dict[str, str]]) -> None:
    with NotebookDisplay() as shown:
        for _ in range(100):
            shown.refresh()
    assert len(drawn) <= 3


def test_a_notebook_is_known_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPython", "ipykernel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    assert not in_notebook()  # a shell in a terminal
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert in_notebook()
