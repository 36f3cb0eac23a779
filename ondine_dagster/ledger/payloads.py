"""How the text of an answer is kept: a codec number and bytes.

Long texts are compressed, where that makes them smaller. zlib, since every Python has it: what is
kept for years must not wait for a library. Where there is a key, the codec and the bytes are sealed
together, bound to the id of their answer.
"""

from __future__ import annotations

import zlib

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.sealing import Sealing, Unreadable

PLAIN, ZLIB, SEALED = 0, 1, 2
_SHORTEST = 100  # bytes; no shorter text gets smaller
_LEVEL = 1  # level 6 takes a quarter more time for a twentieth less space


def encode(text: str, answer: bytes, sealing: Sealing) -> tuple[int, bytes]:
    """Return codec and bytes of the text of `answer`. Lone surrogates were replaced before."""
    codec, body = _packed(text.encode("utf-8"))
    if sealing.namespace is None:
        return codec, body
    return SEALED, sealing.seal(bytes([codec]) + body, answer)


def decode(codec: int, body: bytes, answer: bytes, sealing: Sealing) -> str:
    """Return the text of `answer`.

    Raises OndineError for a codec that this version does not know, Unreadable where the bytes are
    not those that were written, or those of another key.
    """
    if codec == SEALED:
        opened = sealing.open(body, answer)
        codec, body = opened[0], opened[1:]
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


def _packed(plain: bytes) -> tuple[int, bytes]:
    if len(plain) >= _SHORTEST:
        packed = zlib.compress(plain, _LEVEL)
        if len(packed) < len(plain):
            return ZLIB, packed
    return PLAIN, plain
