"""Markdown tables for Dagster's pages, in which nothing that data says is taken for markup.

Owns the escaping: cells hold what rows and providers wrote, and an image or a link in them would
be fetched by whoever opens the page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#!|~$&:])")
_LONGEST = 80  # characters of a cell


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], right: Collection[int] = ()
) -> str:
    """Return a table; the columns `right` hold numbers. None is shown as NULL."""
    rules = ["---:" if column in right else "---" for column in range(len(headers))]
    return "\n".join([line(map(cell, headers)), line(rules), *(line(map(cell, r)) for r in rows)])


def preview(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of one shape as a table."""
    return table(list(rows[0]), [list(row.values()) for row in rows])


def line(cells: Iterable[str]) -> str:
    """Return a line of a table; the cells are markdown."""
    return f"| {' | '.join(cells)} |"


def cell(value: Any) -> str:
    """Return a value as text on one line, shortened, with every mark of markdown escaped."""
    if value is None:
        return "*NULL*"
    text = value if isinstance(value, str) else f"{value:,}" if _is_count(value) else str(value)
    text = " ⏎ ".join(text[: 2 * _LONGEST].splitlines())
    text = f"{text[: _LONGEST - 1]}…" if len(text) > _LONGEST else text
    return _MARKUP.sub(r"\\\1", text)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
