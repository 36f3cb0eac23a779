"""How many rows `prompt.clean` changed: as a note of a file, and in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

# a note of a `prompts` file
CLEANED_NOTE = "ondine.cleaned"
Cleaned = Mapping[tuple[str, str], int]


def cleaned_note(counts: Cleaned) -> str:
    """Return counts by column and kind as the note of a file."""
    return json.dumps([[*key, rows] for key, rows in counts.items()])


def from_note(notes: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Return the counts that a file's notes hold; files of older versions have none."""
    listed = json.loads(notes.get(CLEANED_NOTE, "[]"))
    return Counter({(column, kind): rows for column, kind, rows in listed})


def cleaned_text(counts: Cleaned) -> str:
    """Return counts in words: `review: 12 rows unicode, 3 rows truncate_tokens`."""
    columns: dict[str, list[str]] = {}
    for (column, kind), rows in sorted(counts.items()):
        columns.setdefault(column, []).append(f"{rows:,} {kind}")
    return "; ".join(f"{column}: {', '.join(found)}" for column, found in columns.items())
