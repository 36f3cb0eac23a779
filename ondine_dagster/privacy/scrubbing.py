"""Takes what is found out of a text for good: `[EMAIL]` stands where an address stood. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ondine_dagster.privacy.detectors import KINDS, Finder

Scrub = Callable[[str], str]


def scrubber(kinds: Collection[str] = KINDS, patterns: Mapping[str, str] | None = None) -> Scrub:
    """Return what puts the kind of each value in its place; see `Finder` for both arguments."""
    finder = Finder(kinds, patterns, hide_slow=True)
    return lambda text: finder.replace(text, lambda kind, _: mark(kind))


def mark(kind: str) -> str:
    """Return what stands in the place of a value of this kind: `[EMAIL]`."""
    return f"[{kind.upper()}]"
