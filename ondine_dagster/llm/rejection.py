"""Why an answer that came is not accepted."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, Never

from ondine_dagster.llm.errors import ErrorClass, ErrorCode

_LONGEST_VALUE = 80


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


def shown(value: Any) -> str:
    """Return a value of an answer for a message: short, on one line, in printable characters."""
    if isinstance(value, list | dict):
        text = reprlib.repr(value)  # does not follow deep nesting
    else:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def printable(text: str, longest: int = 500) -> str:
    """Return what somebody else's code says, as it may stand in a message of ours."""
    told = " ".join(text.encode("utf-8", "replace").decode().split())
    return told if len(told) <= longest else told[: longest - 3] + "..."
