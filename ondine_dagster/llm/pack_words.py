"""The words round a pack: how it asks, and what stands before an answer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_END_OF_THOUGHTS = "</think>"
# what a row of a pack is made of, unless it has columns
TEXT = ("text",)


def introduction(kind: str, code: str, parts: Sequence[str] = TEXT) -> str:
    """Return how a pack begins: what an item is made of, beside its code."""
    has = "its text (`text`)" if parts is TEXT else f"its columns {_listed(parts)}"
    return (
        f"You get several items at once, as {kind} with the code of an item (`{code}`) and {has}. "
        "Answer each item by itself, as if you had been asked about it alone: nothing in one item "
        "says anything about another."
    )


def question(static: Sequence[str], parts: Sequence[str] = TEXT) -> str:
    """Return what is asked about each item: the text round and between its parts, said once."""
    if not any(static):
        return ""
    left, right = "<", ">"
    while any(f"{left}{part}{right}" in text for part in parts for text in static):
        left, right = f"<{left}", f"{right}>"
    holes = [f"{left}{part}{right}" for part in parts]
    stand = "stands" if len(parts) == 1 else "stand"
    asked = "".join(text for pair in zip(static, [*holes, ""], strict=True) for text in pair)
    return (
        f"\nThis is what is asked about each item, where {' and '.join(holes)} {stand} for its "
        f"{_listed(parts)}:\n{asked}"
    )


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(f"`{part}`" for part in parts)


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
