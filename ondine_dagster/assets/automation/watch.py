"""What the watch sensor sees of a source, without reading it: names, sizes, times of change.

Pure. A file is taken when it is the same on two ticks, so that half-written ones
are not; a source that only lost something is reported and left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from ondine_dagster.storage.located import Piece
from ondine_dagster.wording import plural

_STAMP_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Source:
    """A source as it is now: one stamp per file, and their size together.

    What a query answers is a file of no size.
    """

    stamps: frozenset[str] = frozenset()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers: the source on its last tick, and as it was last taken."""

    seen: Source = Source()
    taken: Source | None = None

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Return the cursor that Dagster kept; a fresh one where it kept none."""
        if not text:
            return cls()
        content = json.loads(text)
        taken = content["taken"]
        return cls(_source(content["seen"]), None if taken is None else _source(taken))

    def text(self) -> str:
        """Return the cursor for Dagster to keep."""
        taken = None if self.taken is None else _content(self.taken)
        return json.dumps({"seen": _content(self.seen), "taken": taken})


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick came to: the new cursor, and either a snapshot or the reason for none."""

    cursor: Cursor
    take: bool
    reason: str
    warning: bool = False


def event(run_id: str, timestamp: float) -> Source:
    """Return the state of a source that an event of Dagster stands for."""
    return Source(frozenset({_stamp(f"{run_id}\0{timestamp}")}))


def _stamp(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_STAMP_DIGITS]


def look_at(pieces: Iterable[Piece]) -> Source:
    """Return the state of a source: of its files, or of what a query answers."""
    stamps, size = set(), 0
    for piece in pieces:
        stamps.add(_stamp(f"{piece.name}\0{piece.state}"))
        size += piece.size
    return Source(frozenset(stamps), size)


def tick(cursor: Cursor, now: Source) -> Tick:
    """Decide what a tick does that finds the source like `now`."""
    seen = replace(cursor, seen=now)
    taken = cursor.taken
    if not now.stamps:
        return Tick(
            seen,
            take=False,
            warning=True,
            reason="The source is gone: no file is there. Nothing is run, and earlier results are "
            "kept.",
        )
    if taken is not None and now.stamps <= taken.stamps:
        lost = len(taken.stamps) - len(now.stamps)
        if not lost:
            return Tick(seen, take=False, reason="The source has not changed.")
        return Tick(
            seen,
            take=False,
            warning=True,
            reason=f"{lost} of {len(taken.stamps)} files of the source are gone and none is "
            "new. Nothing is run, and their rows are kept. If that is meant, materialize the "
            "snapshot.",
        )
    if now.stamps != cursor.seen.stamps:
        reason = "The source has changed. It is taken when it is the same on the next tick."
        return Tick(seen, take=False, reason=reason)
    shrunk = taken is not None and (len(now.stamps) < len(taken.stamps) or now.size < taken.size)
    size = f": {plural(len(now.stamps), 'file')}, {plural(now.size, 'byte')}" if now.size else ""
    before = (
        f" instead of {plural(len(taken.stamps), 'file')}, {plural(taken.size, 'byte')}"
        if taken
        else ""
    )
    before = before if size else ""
    what = "smaller than it was" if shrunk else "new" if taken is None else "changed"
    return Tick(Cursor(now, now), True, f"The source is {what}{size}{before}.", warning=shrunk)


def _source(content: dict[str, int | str]) -> Source:
    text = str(content["stamps"])
    starts = range(0, len(text), _STAMP_DIGITS)
    stamps = frozenset(text[start : start + _STAMP_DIGITS] for start in starts)
    return Source(stamps, int(content["size"]))


def _content(source: Source) -> dict[str, int | str]:
    return {"stamps": "".join(sorted(source.stamps)), "size": source.size}
