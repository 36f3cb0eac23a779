"""What stands in rows, answers and errors is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ondine_dagster.cli.console import messages, output, visible

EVIL = "\x1b]0;title\x07 \x1b[2J\x9b2J\x7f red\tand\nmore"


@pytest.mark.parametrize("console", [output, messages])
def test_a_terminal_obeys_nothing_of_the_data(
    console: Callable[[], Console], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = console()
    shown.file = io.StringIO()
    table = Table("head")
    table.add_row(Text(EVIL))
    shown.print(Text(EVIL, style="bold"), table, EVIL, markup=False)
    told = shown.file.getvalue()
    assert "\x1b[1m" in told  # our own style
    assert "\x1b]" not in told and "\x1b[2J" not in told
    assert not set("\x07\x7f\x9b") & set(told)
    assert told.count("␛]0;title") == 3


def test_a_pipe_gets_the_data_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    shown = output()
    shown.file = io.StringIO()
    shown.print(Text("\x1b[31mred"))
    assert shown.file.getvalue() == "\x1b[31mred\n"


def test_tabs_line_breaks_and_letters_stay() -> None:
    text = "a\tb\nすばらしい é 👍"
    assert visible(text) == text
