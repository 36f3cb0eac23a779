"""How the text of an answer is kept: a codec number and bytes.

Long texts are compressed, where that makes them smaller. zlib, since every Python has it: what is
kept for years must not wait for a library.
"""

from __future__ import annotations

import zlib

from ondine_dagster.errors import OndineError

PLAIN, ZLIB = 0, 1
_SHORTEST = 100  # bytes; no shorter text gets smaller
_LEVEL = 1  # level 6 takes a quarter more time for a twentieth less space


class Unreadable(OndineError):
    """A text is there and cannot be read: it was changed, or belongs to another key."""


def encode(text: str) -> tuple[int, bytes]:
    """Return codec and bytes of an answer's text. Lone surrogates were replaced before."""
    plain = text.encode("utf-8")
    if len(plain) >= _SHORTEST:
        packed = zlib.compress(plain, _LEVEL)
        if len(packed) < len(plain):
            return ZLIB, packed
    return PLAIN, plain


def decode(codec: int, body: bytes) -> str:
    """Return the text.

    Raises OndineError for a codec that this version does not know, Unreadable where the bytes are
    not those that were written.
    """
    try:
        if codec == ZLIB:
            body = zlib.decompress(body)
        elif codec != PLAIN:
            raise OndineError(
                f"An answer is stored with codec {codec}, which this version cannot read. "
                "Upgrade ondine_dagster; nothing was asked again."
            )
        return body.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise Unreadable(f"its bytes are not those that were stored ({error})") from None
