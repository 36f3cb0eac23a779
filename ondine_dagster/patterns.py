"""Regular expressions of the user's own: read as Python's `re` reads them, with a time limit.

Python's own cannot be stopped, and hold up all threads while they search. Those of the package
`regex` can (https://pypi.org/project/regex/); here is what makes them find the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ondine_dagster.errors import OndineError

# processor time of this process, for one text; what takes so long never ends on a longer one
MOST_SECONDS = 1.0
# so long the search keeps other threads waiting, which is faster than to let them in each time
_ALONE_SECONDS = 0.02

_TOKEN = re.compile(
    r"(?P<comment>\(\?\#[^)]*\))"
    r"|\\N\{[^}]*\}|(?P<escape>\\.)"
    r"|\[(?P<no>\^?)(?P<items>\]?(?:\\.|[^\]\\])*)\]"
    r"|(?P<brace>\{(?!\d+\}|\d*,\d*\}))",  # of no repetition; `{e}` means something to `regex`
    re.DOTALL,
)
_COMMENT_LINE = re.compile(rf"(?P<line>\#[^\n]*)|{_TOKEN.pattern}", re.DOTALL)
# flags of a part of the pattern that change what is said here of all of it
_OF_A_PART = re.compile(r"\(\?[a-zA-Z]*[ax][a-zA-Z]*(?:-[a-z]+)?:")
# what `re` means by \w, \s and \d, without and with its flag ASCII: `regex` has accents among the
# first, no separators in the second, and is wrong about sets of these with the flag
_UNICODE = {"w": r"\p{L}\p{N}_", "s": r"\s\x1c-\x1f", "d": r"\d"}
_ASCII = {"w": "A-Za-z0-9_", "s": r" \t\n\r\f\v", "d": "0-9"}


class PatternTooSlow(OndineError):
    """A pattern has searched one text for as long as it may."""

    def __init__(self, pattern: str) -> None:
        short = pattern if len(pattern) <= 80 else f"{pattern[:77]}..."
        super().__init__(
            f"the pattern {short} searched this text for more than {MOST_SECONDS:g} s; write it so "
            "that a text fits in one way only: no repetition of a repetition, as in (a+)+"
        )


class OwnPattern:
    """A compiled pattern. Each search raises PatternTooSlow after `MOST_SECONDS`."""

    def __init__(self, pattern: str) -> None:
        """Raises re.error for what is no regular expression of Python's."""
        import regex

        flags = re.compile(pattern).flags
        self.pattern = pattern
        try:
            self._compiled: Any = regex.compile(_as_python_reads(pattern, flags), regex.V0)
        except regex.error as error:
            raise re.error(f"{error}; this form is not supported here") from None

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first match, None where there is none."""
        found: re.Match[str] | None = self._limited(self._compiled.search, text)
        return found

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """Return the match of the whole text, None where it does not match."""
        found: re.Match[str] | None = self._limited(self._compiled.fullmatch, text)
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the matches are that are not empty, in order; none overlap."""

        def search(text: str, **limit: Any) -> list[tuple[int, int]]:
            found = (one.span() for one in self._compiled.finditer(text, **limit))
            return [(start, end) for start, end in found if start < end]

        spans: list[tuple[int, int]] = self._limited(search, text)
        return spans

    def _limited(self, search: Callable[..., Any], text: str) -> Any:
        try:
            return search(text, timeout=_ALONE_SECONDS)
        except TimeoutError:
            pass
        try:  # once more from the start, and the other threads go on
            return search(text, timeout=MOST_SECONDS, concurrent=True)
        except TimeoutError:
            raise PatternTooSlow(self.pattern) from None


def _as_python_reads(pattern: str, flags: int) -> str:
    """Return the pattern for `regex`, with what that would read in another way spelled out."""
    if _OF_A_PART.search(pattern):
        return pattern
    kinds = _ASCII if flags & re.ASCII else _UNICODE
    word = kinds["w"]
    edges = {
        r"\b": rf"(?:(?<=[{word}])(?![{word}])|(?<![{word}])(?=[{word}]))",
        r"\B": rf"(?:(?<=[{word}])(?=[{word}])|(?<![{word}])(?![{word}]))",
    }
    outside = edges | {f"\\{kind}": f"[{them}]" for kind, them in kinds.items()}
    others = {f"\\{kind.upper()}": f"[^{them}]" for kind, them in kinds.items()}
    inside = {f"\\{kind}": them for kind, them in kinds.items()} | {"[": r"\["}

    def token(found: re.Match[str]) -> str:
        if found["brace"]:
            return r"\{"
        if found["items"] is None:
            return outside.get(found[0]) or others.get(found[0], found[0])
        pieces = re.findall(r"\\.|.", found["items"], re.DOTALL)
        own = "".join(inside.get(one, one) for one in pieces if one not in others)
        not_own = [others[one] for one in dict.fromkeys(pieces) if one in others]
        if not not_own:
            return f"[{found['no']}{own}]"
        ways = "|".join([f"[{own}]", *not_own] if own else not_own)
        return f"(?:(?!{ways})(?s:.))" if found["no"] else f"(?:{ways})"

    return (_COMMENT_LINE if flags & re.VERBOSE else _TOKEN).sub(token, pattern)
