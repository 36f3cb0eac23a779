"""An answer of `sql` as a table that fits the terminal, and the text of single values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ondine_dagster.cli.console import visible

if TYPE_CHECKING:
    import duckdb

SHOWN_ROWS = 50
_WIDEST, _NARROWEST = 80, 10  # of a column that has to give way to others
_BETWEEN = 2  # spaces between columns, one of them the box's
_NUMBERS = (
    "BIGINT", "DECIMAL", "DOUBLE", "FLOAT", "HUGEINT", "INTEGER", "SMALLINT", "TINYINT", "U"
)  # fmt: skip


def draw(answer: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Draw the first rows, and say what is left out."""
    rows = answer.fetchmany(SHOWN_ROWS + 1)
    names = [column[0] for column in answer.description]
    cells = [[_cell(value) for value in row] for row in rows[:SHOWN_ROWS]]
    columns = list(zip(*cells, strict=True)) or [()] * len(names)
    natural = [
        max(cell_len(name), 1, *(cell.cell_len for cell in column))
        for name, column in zip(names, columns, strict=True)
    ]
    widths = fitted(natural, console.width)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
    for (name, kind, *_), width in zip(answer.description, widths, strict=False):
        table.add_column(
            Text(name),
            width=width,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if str(kind).startswith(_NUMBERS) else "left",
        )
    for row in cells:
        table.add_row(*row[: len(widths)])
    console.print(table)
    _say_what_is_missing(console, names[len(widths) :], len(rows) > SHOWN_ROWS)


def fitted(natural: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into `room`: the widest give way first, then the last are left out."""
    widths = [min(width, _WIDEST) for width in natural]
    while widths and sum(widths) + _BETWEEN * (len(widths) + 1) > room:
        widest = max(widths)
        if widest > _NARROWEST:
            widths[widths.index(widest)] -= 1
        else:
            widths.pop()
    return widths or [max(1, room - 2 * _BETWEEN)]


def _say_what_is_missing(console: Console, columns: Sequence[str], more_rows: bool) -> None:
    missing = [f"the columns {', '.join(columns)}"] if columns else []
    if more_rows:
        missing.append(f"the rows after the first {SHOWN_ROWS}")
    if missing:
        hint = f"Not drawn: {', '.join(missing)}. With `| cat` or `> file.csv` you get everything."
        console.print(Text(hint, style="dim"))


def _cell(value: Any) -> Text:
    if value is None:
        return Text("NULL", style="dim italic")
    line = as_text(value)[: 2 * _WIDEST].replace("\r", "").replace("\n", "⏎")
    return Text(visible(line))


def as_text(value: Any) -> str:
    """Return a value as people and programs read it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value)
