"""A token count that needs no tokenizer: four bytes of UTF-8 are one token.

It is the same on every machine and for ever, which a learnt ratio is not: a text that is shortened
by it gives the same question again. English has about as many tokens, other languages differ.
"""

from __future__ import annotations

from unicodedata import combining

BYTES_PER_TOKEN = 4
MARKER = "…"
_JOINER, _VARIATION = "\u200d", "\ufe0f"
# A cut is moved back to the last space, where that is not further away than this many characters.
_LONGEST_WORD = 40


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def truncated(text: str, tokens: int, marker: str = MARKER) -> str:
    """Return the beginning of a text and `marker`, `tokens` in all; short texts as they are.

    Words and characters stay whole, also those of several code points. A marker that is longer than
    `tokens` stands alone.
    """
    data = text.encode("utf-8", "surrogatepass")
    most = tokens * BYTES_PER_TOKEN
    if len(data) <= most:
        return text
    room = max(0, most - len(marker.encode("utf-8", "surrogatepass")))
    kept = len(data[:room].decode("utf-8", "ignore"))
    while kept > 0 and _joined(text[kept - 1], text[kept]):
        kept -= 1
    if not text[kept].isspace():
        last = max(text.rfind(space, max(0, kept - _LONGEST_WORD), kept) for space in " \n\t")
        kept = last if last > 0 else kept
    return text[:kept].rstrip() + marker


def _joined(before: str, after: str) -> bool:
    """Return whether two code points are parts of one character."""
    return bool(combining(after)) or after in (_JOINER, _VARIATION) or before == _JOINER
