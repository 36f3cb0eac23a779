"""Ondine's patterns, one for each column, as the one with named groups that we have. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>|\(\?|\(", re.DOTALL)
# what counts groups, or says how all of a pattern is read: not to be put into another one
_NOT_MOVABLE = re.compile(r"\\[1-9]|\(\?P=|\(\?\(|^\(\?[aiLmsux]+\)")


def one_pattern(patterns: Mapping[str, str]) -> str | None:
    """Return a pattern that fills the same columns, None where there is none.

    Each is looked for in the whole text, wherever the others are; the answer of a column is its
    first group, or all of it where it has none. All of them have to be found.
    """
    if any(not name.isidentifier() or not _movable(text) for name, text in patterns.items()):
        return None
    named = [_with_group(text, name) for name, text in patterns.items()]
    whole = named[0] if len(named) == 1 else r"\A" + "".join(f"(?=(?s:.*?){one})" for one in named)
    return whole if set(re.compile(whole).groupindex) == set(patterns) else None


def _movable(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return _NOT_MOVABLE.search(pattern) is None


def _with_group(pattern: str, name: str) -> str:
    """Return the pattern with its first group under this name, the others without names."""
    pieces, end, found = [], 0, False
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "(" or text.startswith("(?P<"):
            pieces += [pattern[end : token.start()], "(?:" if found else f"(?P<{name}>"]
            end, found = token.end(), True
    if not found:
        return f"(?P<{name}>{pattern})"
    rest = "".join([*pieces, pattern[end:]])
    return f"(?:{rest})"
