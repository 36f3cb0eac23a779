"""How the text of an answer is kept: a codec number and bytes."""

from __future__ import annotations

from ondine_dagster.errors import OndineError

PLAIN = 0


def encode(text: str) -> tuple[int, bytes]:
    """Return codec and bytes of an answer's text. Lone surrogates were replaced before."""
    return PLAIN, text.encode("utf-8")


def decode(codec: int, body: bytes) -> str:
    """Return the text; raises OndineError for a codec that this version does not know."""
    if codec != PLAIN:
        raise OndineError(
            f"An answer is stored with codec {codec}, which this version cannot read. "
            "Upgrade ondine_dagster; nothing was asked again."
        )
    return body.decode("utf-8")
