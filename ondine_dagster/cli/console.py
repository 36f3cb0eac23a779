"""Standard output and error as people and programs see them, and how durations are written.

Progress and messages go to standard error, results to standard output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# all but tab and line feed, and those that some terminals obey in one byte
_CONTROLS = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"},
    **dict.fromkeys(range(0x7F, 0xA0), 0x2421),
}


def visible(text: str) -> str:
    """Return a text with signs in place of characters that a terminal would obey."""
    return text.translate(_CONTROLS)


class _SafeConsole(Console):
    """Obeys nothing that stands in rows, answers and errors, where it writes to a terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for one in super().render(renderable, options):
            harmless = one.control or not self.is_terminal
            yield one if harmless else Segment(visible(one.text), one.style)


def output(*, wrapped: bool = False) -> Console:
    """Return standard output. Paths and commands are not wrapped: people copy them."""
    return _SafeConsole(highlight=False, soft_wrap=not wrapped)


def messages() -> Console:
    """Return standard error."""
    return _SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Text:
    """Return rows of cells in columns, the first one faint; columns in `right` end together."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [
        Text.assemble(
            *(
                (_fitted(cell, width, index in right), "" if index else "dim")
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
        for row in rows
    ]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _fitted(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return f"{space}{cell}  " if right else f"{cell}{space}  "


def seconds(duration: float) -> str:
    """Return a duration as people read it."""
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
