"""The words round a pack: how it asks, and what stands before an answer. Pure."""

from __future__ import annotations

from collections.abc import Collection

_END_OF_THOUGHTS = "</think>"
INTRODUCTION = (
    "You get several items at once, as {kind} with the code of an item (`{code}`) and its text "
    "(`text`). Answer each item by itself, as if you had been asked about it alone: nothing in one "
    "item says anything about another."
)


def question(head: str, tail: str) -> str:
    """Return what is asked about each item, where all texts begin and end with the same words."""
    if not head and not tail:
        return ""
    hole = "<text>"
    while hole in head + tail:
        hole = f"<{hole}>"
    return (
        f"\nThis is what is asked about each item, where {hole} stands for its `text`:\n"
        f"{head}{hole}{tail}"
    )


def free_name(taken: Collection[str]) -> str:
    """Return the name under which codes stand: `id`, unless a field is called so."""
    name = "id"
    while name in taken:
        name = f"row_{name}"
    return name


def without_thoughts(text: str, *begins: str) -> str:
    """Return an answer without the thoughts before it, which may try answers out.

    One that `begins` like an answer has none: what looks like their end is part of it.
    """
    return text if text.lstrip().startswith(begins) else text.rpartition(_END_OF_THOUGHTS)[2]
