"""What the names of columns must be, in whatever file they stand: there, and each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ondine_dagster.errors import OndineError


def named(names: Sequence[str | None], path: Path | str, advice: str = "") -> list[str]:
    """Return the names; raises OndineError for the first column of a header line without one."""
    for place, name in enumerate(names, start=1):
        if not name:
            raise OndineError(
                f"{path}: column {place} of {len(names)} has no name in the header line. Give it "
                f"one.{advice}"
            )
    return [str(name) for name in names]


def distinct(names: Sequence[str], path: Path | str) -> list[str]:
    """Return the names; raises OndineError where two columns have the same."""
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise OndineError(f"{path}: columns with the same name: {', '.join(repeated)}. Rename one.")
    return list(names)
