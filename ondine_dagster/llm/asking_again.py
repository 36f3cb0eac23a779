"""Which rejected rows can succeed when they are asked again, and how a person chooses among them.

Owns the table. A row that waits (not attempted, held) is no rejected row: the next run asks it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.errors import ErrorClass, ErrorCode

ALL = "all"


class Chance(StrEnum):
    """Whether another request for the row may bring a result."""

    GOOD = "good"  # asked again unless others are named
    BY_NAME = "by name"  # asked again only where its class or code is named
    NONE = "none"


CHANCES = {
    ErrorClass.TRANSIENT: Chance.GOOD,  # the server or the way to it failed, not the row
    ErrorClass.CAPACITY: Chance.GOOD,  # the server was busy
    ErrorClass.ROW_RETRYABLE: Chance.GOOD,  # an answer came and could not be used: the next may
    ErrorClass.ROW: Chance.BY_NAME,  # the same model will most likely say the same
    ErrorClass.EXHAUSTED: Chance.NONE,  # the run stopped: such rows wait, and the next run asks
    ErrorClass.CONFIG: Chance.NONE,  # the declaration has to be put right first
    ErrorClass.UNKNOWN: Chance.NONE,  # held: a person resolves it
}
_NOT_ITS_OWN = (ErrorClass.TRANSIENT, ErrorClass.CAPACITY)
# there is no question, the declaration or the key is wrong, or the row waits and is not rejected
_NEVER = frozenset(
    {
        ErrorCode.RENDER_FAILED,
        ErrorCode.PROMPT_BLANK,
        ErrorCode.REMOTE_REFUSED,
        ErrorCode.REMOTE_TOO_LARGE,
        ErrorCode.REMOTE_FAILED,
        ErrorCode.ATTACHMENT_MISSING,
        ErrorCode.ATTACHMENT_INVALID,
        ErrorCode.ATTACHMENT_TOO_LARGE,
        ErrorCode.REDIRECTED,
        ErrorCode.BAD_REQUEST,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.PAYMENT_REQUIRED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode.QUOTA_EXHAUSTED,
        ErrorCode.KEY_BUDGET,
        ErrorCode.UNEXPECTED_STATUS,
        ErrorCode.STOPPED,
        ErrorCode.BUDGET_USED_UP,
        ErrorCode.RATE_LIMITED_DAILY,
        ErrorCode.BREAKER_OPEN,
        ErrorCode.BOUND_VIOLATED,
        ErrorCode.LEDGER_UNAVAILABLE,
        ErrorCode.UNKNOWN_HELD,
        ErrorCode.ANSWER_PURGED,
        ErrorCode.ANSWER_UNREADABLE,
    }
)
# an answer came whole, and what `output` says of it did not fit
_READ = frozenset(
    {
        ErrorCode.ANSWER_NOT_JSON,
        ErrorCode.ANSWER_NOT_FINITE,
        ErrorCode.ANSWER_NOT_OBJECT,
        ErrorCode.ANSWER_NOT_VALID,
        ErrorCode.ANSWER_NOT_MATCHED,
        ErrorCode.FIELD_MISSING,
        ErrorCode.FIELD_WRONG_TYPE,
        ErrorCode.FIELD_NOT_IN_ENUM,
        ErrorCode.FIELD_OUT_OF_RANGE,
        ErrorCode.FIELD_NOT_ACCEPTED,
        ErrorCode.PATTERN_TOO_SLOW,
        ErrorCode.FUNCTION_FAILED,
    }
)


def may_be_read_otherwise(code: str) -> bool:
    """Return whether another way to read the answer that came, which costs nothing, may help."""
    return code in _READ


def chance(error_class: str, code: str) -> Chance:
    """Return whether a row that was rejected for this may succeed when it is asked again."""
    return Chance.NONE if code in _NEVER else CHANCES[ErrorClass(error_class)]


def may_go_together(error_class: str, code: str) -> bool:
    """Return whether such rows may be asked in one request: nothing says that one is to blame."""
    return error_class in _NOT_ITS_OWN and code != ErrorCode.TIMEOUT  # alone it took too long


def retry_options(rejected: Iterable[tuple[str, str]]) -> str | None:
    """Return the options of a `retry` that asks again for rows of these error classes and codes.

    None are needed where some have a chance; else they are named. None: no retry asks for any.
    """
    chances = {why: chance(*why) for why in rejected}
    if Chance.GOOD in chances.values():
        return ""
    named = sorted({code for (_, code), own in chances.items() if own is Chance.BY_NAME})
    return "".join(f" --class {code}" for code in named) or None


@dataclass(frozen=True, slots=True)
class Selection:
    """The rejected rows that a person chose, by class or code; without names those with a chance.

    The name of a class stands for all of its codes that can be asked at all.
    """

    names: frozenset[str] = frozenset()

    def takes(self, error_class: str, code: str) -> bool:
        """Return whether a row that was rejected for this is among them."""
        own = chance(error_class, code)
        if not self.names:
            return own is Chance.GOOD
        return own is not Chance.NONE and not self.names.isdisjoint((error_class, code))

    def __str__(self) -> str:
        return ",".join(sorted(self.names)) or ALL


def selection(names: Collection[str]) -> Selection:
    """Return the selection of these classes and codes; `all`, or none, is what has a chance.

    Raises OndineError for a name that cannot be asked again, with those that can.
    """
    if ALL in names and len(names) > 1:
        raise OndineError(f"`{ALL}` stands for every class with a chance: name no other with it.")
    chosen = frozenset(names) - {ALL}
    classes = [one.value for one, own in CHANCES.items() if own is not Chance.NONE]
    known = [*classes, *(code.value for code in ErrorCode if code not in _NEVER)]
    for name in sorted(chosen):
        if name not in known:
            raise OndineError(_refusal(name, classes, known))
    return Selection(chosen)


def _refusal(name: str, classes: Collection[str], known: Collection[str]) -> str:
    listed = f"Classes: {', '.join(classes)}; or a code, as in the column _error_code."
    if name in set(ErrorClass) | set(ErrorCode):
        return f"Rows rejected as `{name}` are never asked again by a retry. {listed}"
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    return f"There is no error class or code `{name}`.{hint} {listed}"
