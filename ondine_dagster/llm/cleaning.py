"""Tidies the text of columns before it goes into a prompt, and counts what it changed. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unicodedata import normalize

from ondine_dagster.spec.cleaning import Clean
from ondine_dagster.spec.tokens import truncated

# C0 without tab, line feed and carriage return; delete; C1
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_Step = Callable[[str], str]


class Cleaner:
    """Cleans row after row; `counts` are the rows that were changed, by column and kind."""

    def __init__(self, declared: Mapping[str, Clean]) -> None:
        self._steps = {column: _steps(clean) for column, clean in declared.items()}
        self.counts: Counter[tuple[str, str]] = Counter()

    def clean(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the row with its text cleaned; what is no text stays as it is."""
        if not self._steps:
            return row
        cleaned = dict(row)
        for column, steps in self._steps.items():
            value = cleaned.get(column)
            if isinstance(value, str):
                for kind, step in steps:
                    before, value = value, step(value)
                    if value != before:
                        self.counts[column, kind] += 1
                cleaned[column] = value
        return cleaned


def _steps(clean: Clean) -> list[tuple[str, _Step]]:
    """Return what is done to a text, in order, each with the name of its setting."""
    steps: list[tuple[str, _Step]] = []
    if clean.unicode is not None:
        steps.append(("unicode", partial(normalize, "NFC")))
    if clean.control_characters is not None:
        put = " " if clean.control_characters == "space" else ""
        steps.append(("control_characters", partial(_CONTROL.sub, put)))
    if clean.white_space is not None:
        steps.append(("white_space", str.strip if clean.white_space == "trim" else _collapsed))
    if clean.truncate_tokens is not None:
        cut = partial(truncated, tokens=clean.truncate_tokens, marker=clean.marker)
        steps.append(("truncate_tokens", cut))
    return steps


def _collapsed(text: str) -> str:
    return " ".join(text.split())
