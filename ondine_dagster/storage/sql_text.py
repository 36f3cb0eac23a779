"""The order of rows from a query: the query's own, or one that is the same every time.

A database may return the rows of one query in another order each time, and results stand in input
order. Pure: SQL text and tables in, tables out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ondine_dagster.storage.row_keys import canonical_json, plain_values

if TYPE_CHECKING:
    import pyarrow as pa

# What may hold words that are not SQL, each with its end; then brackets, and words.
_TOKENS = re.compile(
    r"""
    --[^\n]* | /\*.*?(?:\*/|\Z)
    | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*`
    | (?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z)
    | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<word>\w+)
    """,
    re.VERBOSE | re.DOTALL,
)


def tells_order(query: str) -> bool:
    """Return whether a query ends in an ORDER BY of its own, not only one in brackets."""
    depth, before = 0, ""
    for token in _TOKENS.finditer(query):
        if token["open"] or token["close"]:
            depth += 1 if token["open"] else -1
        elif depth == 0 and token["word"]:
            word = token["word"].lower()
            if before == "order" and word == "by":
                return True
            before = word
    return False


def in_fixed_order(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the rows by the columns of `key`, or by all columns where there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if table.num_rows < 2:
        return table
    names = [name for name in key if name in table.column_names] or table.column_names
    columns = {str(place): _sortable(table[name]) for place, name in enumerate(names)}
    by = [(name, "ascending") for name in columns]
    return table.take(pc.sort_indices(pa.table(columns), sort_keys=by))


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what a column is sorted by: itself, or its values as JSON, which any type has."""
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_null(kind)):
        return column
    texts = [
        None if value is None else canonical_json(value)
        for chunk in column.chunks
        for value in plain_values(chunk)
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])
