"""What `doctor` says: one line per thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How good it is, in the words of the terminal."""

    GOOD = "ok"
    LOOK = "warn"  # works, and may cost time, money or nerves one day
    BAD = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how good it is, what was looked at, and what was found."""

    level: Level
    what: str
    found: str
