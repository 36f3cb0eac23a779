"""How counts and lists are written for people, the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def plural(count: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(items: Sequence[object], most: int) -> str:
    """Return the first `most` of `items` with commas, and dots where there are more."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def counted(counts: Mapping[str, int], most: int) -> str:
    """Return the names with the largest counts, `9 this, 1 that`, and dots where there are more."""
    names = sorted(counts, key=lambda one: (-counts[one], one))
    return listed([f"{counts[one]:,} {one}" for one in names], most)
