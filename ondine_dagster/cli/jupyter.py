"""What a run shows in a notebook: a bar that the cell's own thread draws again, and plain lines.

Needs nothing but IPython, which is there wherever a kernel runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from html import escape
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from ondine_dagster.cli.progress import LiveDisplay

_EVERY_SECONDS = 0.4


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules and "IPython" in sys.modules


class NotebookDisplay(LiveDisplay):
    """A bar below the cell. `refresh` has to be called now and then, by the thread of the cell."""

    def __init__(self) -> None:
        # what goes to standard error is red in a notebook, and rich would make HTML of each line
        super().__init__(Console(file=sys.stdout, force_jupyter=False, soft_wrap=True))
        self._handle: Any = None
        self._drawn = 0.0

    def refresh(self) -> None:
        """Draw the bar again, if it is old enough."""
        if time.monotonic() - self._drawn > _EVERY_SECONDS:
            self._draw()

    def abandon(self) -> None:
        """There is no cursor to show again."""

    def __enter__(self) -> Self:
        from IPython.display import display

        self._handle = display(self._drawing(), raw=True, display_id=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stage = "ended" if kind is None else "stopped"
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self._drawing(), raw=True)

    def _drawing(self) -> dict[str, str]:
        """Return the bar as HTML, and as text for what shows none."""
        lines = list(self._texts())
        done, rows = self.total("done"), max(1, self._rows)
        bar = f'<progress value="{done}" max="{rows}"></progress> ' if self._pace else ""
        page = "<br>".join(map(escape, lines))
        return {"text/plain": "\n".join(lines), "text/html": f"<div>{bar}{page}</div>"}

    def _texts(self) -> Iterator[str]:
        if self._pace is None:
            yield self._stage
            return
        yield f"{self._stage}: {self.total('done'):,} of {self._rows:,} rows"
        for line in self._lines(self._pace):
            yield line.plain
