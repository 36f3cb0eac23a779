"""Why an answer that came is not accepted."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, Never

from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.privacy.scrubbing import beginning

_LONGEST_VALUE = 80
_NOT_PRINTABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an answer was not accepted."""

    code: ErrorCode
    message: str
    error_class: ErrorClass = ErrorClass.ROW_RETRYABLE


class Rejected(Exception):
    """Raised while an answer is read, for its reader alone."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


def reject(
    code: ErrorCode, message: str, error_class: ErrorClass = ErrorClass.ROW_RETRYABLE
) -> Never:
    """Raise `Rejected`."""
    raise Rejected(Rejection(code, message, error_class))


class _Shown(reprlib.Repr):
    """Does not follow deep nesting. Texts are whole: half a value would not be found in them."""

    def repr_str(self, x: str, level: int) -> str:
        """Return a text on one line without escapes: `\\n4111` begins like a word."""
        line = " ".join(x[: 10 * _LONGEST_VALUE].split())
        return repr("".join(one if one.isprintable() else _NOT_PRINTABLE for one in line))


_SHOWN = _Shown()


def shown(value: Any) -> str:
    """Return a value of an answer for a message: short, on one line, in printable characters."""
    return beginning(_SHOWN.repr(value), _LONGEST_VALUE)


def printable(text: str, longest: int = 500) -> str:
    """Return what somebody else's code says, as it may stand in a message of ours."""
    told = " ".join(text.encode("utf-8", "replace").decode().split())
    return beginning(told, longest)
