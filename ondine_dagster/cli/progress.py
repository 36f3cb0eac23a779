"""What a run shows while it goes on: a live display on a terminal, plain lines elsewhere.

Where ONDINE_LOG_FORMAT is json, standard error has lines of JSON and nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ondine_dagster.assets.monitoring.live import LiveStep, Pace, costs, speed, waits
from ondine_dagster.assets.shared.stage import asked_level, wants_json
from ondine_dagster.cli.console import messages
from ondine_dagster.observe.log_lines import JsonFormatter
from ondine_dagster.settings import Settings
from ondine_dagster.wording import plural

_BAR_WIDTH = 36
_REFRESHES_PER_SECOND = 8
_SHOW_CURSOR = b"\x1b[?25h\n"
_Number = Literal["done", "requests", "retries"]


class Display:
    """Plain lines on standard error. A context manager: it shows from enter to exit."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._steps: list[LiveStep] = []

    def stop(self) -> None:
        """Let the steps that are asking end as soon as they can."""
        for step in self._steps:
            step.stop()

    def total(self, number: _Number) -> int:
        """Return a number of the engine, over all steps of this run."""
        return sum(getattr(step.progress, number) for step in self._steps)

    def say(self, text: str, style: str = "") -> None:
        """Show a line."""
        self.console.print(Text(text, style=style))

    def log(self, level: int, message: str) -> None:
        """Show a line that a step has logged."""
        self.say(message)

    def doing(self, stage: str) -> None:
        """Say which stage is on; the lines of the steps say it here."""

    def expect(self, partitions: int, rows: int) -> None:
        """Say how much is to be asked."""

    def asking(self, step: LiveStep) -> None:
        """Take the numbers of a step that begins to ask."""
        self._steps.append(step)

    def interrupted(self, drain_seconds: float) -> None:
        """Say that the run ends as soon as it can."""
        self.say(
            f"Stopping: requests in flight get up to {drain_seconds:g} s, and their answers are "
            "kept. Ctrl-C again ends at once."
        )

    def abandon(self) -> None:
        """Leave the terminal usable when the process ends at once."""

    def refresh(self) -> None:
        """Show the numbers of the moment, where nothing else does so by itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the display."""


class JsonDisplay(Display):
    """Lines of JSON. Those that steps log are written by the steps themselves."""

    def say(self, text: str, style: str = "") -> None:
        """Write a line; what is red is an error."""
        level = logging.ERROR if style == "red" else logging.INFO
        record = logging.LogRecord("ondine_dagster.cli", level, "", 0, text, None, None)
        click.echo(JsonFormatter().format(record), err=True)

    def log(self, level: int, message: str) -> None:
        """Leave the line to the step."""


class LiveDisplay(Display):
    """A bar and the numbers of the moment; only lines of some level are shown."""

    def __init__(self, console: Console, level: int = logging.WARNING) -> None:
        super().__init__(console)
        self._level = level
        self._stage = "starting"
        self._partitions = self._rows = 0
        self._pace: Pace | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console,
            get_renderable=self.render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
        )

    def log(self, level: int, message: str) -> None:
        """Show a line of the level, or above."""
        if level >= self._level:
            self.say(message, style="yellow" if level >= logging.WARNING else "dim")

    def doing(self, stage: str) -> None:
        """Show which stage is on."""
        self._stage = stage

    def expect(self, partitions: int, rows: int) -> None:
        """Take how much is to be asked."""
        self._partitions, self._rows = partitions, rows

    def asking(self, step: LiveStep) -> None:
        """Take the numbers of a step that begins to ask."""
        super().asking(step)
        self._pace = self._pace or Pace()

    def abandon(self) -> None:
        """Show the cursor again."""
        # not through the console: another thread may be writing there
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _SHOW_CURSOR)

    def render(self) -> RenderableType:
        """Return what stands below the lines."""
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner, Text(self._stage, style="bold"))
        if self._pace is None:
            return head
        done = self.total("done")
        head = Table.grid(padding=(0, 1))
        head.add_row(
            self._spinner,
            Text(self._stage, style="bold"),
            ProgressBar(total=max(1, self._rows), completed=done, width=_BAR_WIDTH),
            Text(f"{done:,} of {self._rows:,} rows"),
        )
        lines = Text("\n").join(self._lines(self._pace))
        return Group(head, Padding(lines, (0, 0, 0, 2), expand=False))  # ^C is echoed behind it

    def _lines(self, pace: Pace) -> Iterator[Text]:
        """Yield lines that fit a narrow terminal."""
        finished, red = (sum(getattr(step, name) for step in self._steps) for name in _COUNTS)
        partitions = f"{finished} of {plural(self._partitions, 'partition')}"
        speeds = speed(self._steps, self._rows, pace)
        yield Text(" · ".join([partitions, *speeds]), style="dim")
        yield Text(" · ".join(costs(self._steps)), style="dim")
        for reason in waits(self._steps):
            yield Text(reason, style="yellow")
        if red:
            yield Text(f"{red} not complete", style="yellow")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()


_COUNTS = ("finished", "red")


def display(settings: Settings) -> Display:
    """Return the display for standard error as it is.

    Raises OndineError for a level or a format of lines that does not exist.
    """
    level, console = asked_level(settings, {}), messages()
    if wants_json(settings):
        return JsonDisplay(console)
    if console.is_terminal:
        return LiveDisplay(console, level or logging.WARNING)
    return Display(console)
