"""Takes API keys out of what a server sends, also where it wrote them escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

REDACTED = b"***"
_SHORTEST = 8  # bytes; a shorter "key" is no secret, and would be found in innocent words
_PLAIN = rb"[A-Za-z0-9._~-]"  # neither JSON nor a URL ever escapes these


class Redactor:
    """Replaces every known key in bytes; what holds none costs one search per key."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        # the longest first: one key may be the beginning of another
        known = sorted({key for key in keys if len(key) >= _SHORTEST}, key=len, reverse=True)
        # a part that reads the same however the key is escaped
        self._marks = [max(re.findall(_PLAIN + rb"+", key), key=len, default=b"") for key in known]
        self._pattern = re.compile(b"|".join(map(_in_any_form, known)))

    def __call__(self, data: bytes) -> bytes:
        """Return `data` without keys; the same object where it holds none."""
        for mark in self._marks:
            if mark in data:
                clean, found = self._pattern.subn(REDACTED, data)
                return clean if found else data
        return data


def _in_any_form(key: bytes) -> bytes:
    return b"".join(map(_forms, key))


def _forms(byte: int) -> bytes:
    r"""Return a pattern that finds, for a `+`: `+`, `\+`, `\u002b` and `%2B`."""
    one = bytes([byte])
    if re.match(_PLAIN, one):
        return re.escape(one)
    return rb"(?:\\*%s|\\+u00(?i:%02x)|%%(?i:%02x))" % (re.escape(one), byte, byte)
