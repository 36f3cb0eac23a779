"""What the names of columns must be, in whatever file they stand: there, and each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ondine_dagster.errors import OndineError
from ondine_dagster.wording import listed

_SHOWN_COLUMNS = 20


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


def its_columns(columns: Sequence[str], wanted: Sequence[str]) -> str:
    """Return a sentence with the columns of a source, and one with those nearest to `wanted`."""
    shown = {name.strip().casefold(): _shown(name) for name in columns}
    near = [
        shown[one]
        for name in wanted
        for one in get_close_matches(name.strip().casefold(), list(shown), n=1)
    ]
    names = listed([_shown(name) for name in columns], _SHOWN_COLUMNS)
    told = f"Its columns: {names}" + ("" if names.endswith("...") else ".")
    return f"{told} Did you mean {', '.join(dict.fromkeys(near))}?" if near else told


def _shown(name: str) -> str:
    return name if name == " ".join(name.split()) else repr(name)
