"""Takes API keys out of what a server sends, also where it wrote them escaped."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

REDACTED = b"***"
_SHORTEST = 8  # bytes; a shorter "key" is no secret, and would be found in innocent words
_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # in base64
_PLAIN = rb"[A-Za-z0-9._~-]"  # neither JSON nor a URL ever escapes these


class Redactor:
    """Replaces every known key in bytes; what holds none costs one search per key."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        forms = {form for key in keys for form in _written(key)}
        # the longest first: one key may be the beginning of another
        known = sorted({one for one in forms if len(one) >= _SHORTEST}, key=len, reverse=True)
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


def _written(key: bytes) -> Iterator[bytes]:
    """Yield a key, what follows a scheme such as `Bearer `, and each of them within base64."""
    for one in {key, key.rpartition(b" ")[2]}:
        yield one
        if len(one) < _SHORTEST:
            continue
        for before in range(3):  # how many bytes stand before it in its group of three
            first, last = before + (before > 0), 8 * (before + len(one)) // 6
            encoded = b64encode(bytes(before) + one)[first:last]
            yield encoded
            yield encoded.translate(_URL_SAFE)


def _in_any_form(key: bytes) -> bytes:
    return b"".join(map(_forms, key))


def _forms(byte: int) -> bytes:
    r"""Return a pattern that finds, for a `+`: `+`, `\+`, `\u002b` and `%2B`."""
    one = bytes([byte])
    if re.match(_PLAIN, one):
        return re.escape(one)
    return rb"(?:\\*%s|\\+u00(?i:%02x)|%%(?i:%02x))" % (re.escape(one), byte, byte)
