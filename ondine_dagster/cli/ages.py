"""How long ago, as people write it: 90m, 2h or 3d."""

from __future__ import annotations

import re

from ondine_dagster.errors import OndineError

_AGE = re.compile("(?P<count>[0-9]{1,6}) ?(?P<unit>[mhd])")
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}


def milliseconds(age: str, option: str) -> int:
    """Return an age such as 90m, 2h or 3d; raises OndineError that names the option."""
    found = _AGE.fullmatch(age.strip().lower())
    if found is None:
        raise OndineError(f"{option} {age} is not an age. Write it like 90m, 2h or 3d.")
    return int(found["count"]) * _MINUTES[found["unit"]] * 60_000
