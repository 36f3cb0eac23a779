"""How many tokens the simulated model counts and bills. Pure.

Owns the token rules of the provider: how text becomes tokens, what a ceiling cuts off, and the
reasoning tokens that a client pays without ever seeing them.
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TokenRules:
    """The token rules of one simulated model.

    `per_byte` counts one token per UTF-8 byte (numeric text really reaches that), `reasoning` adds
    that many hidden completion tokens to each answer, and `ignore_ceiling` bills and answers past
    the `max_tokens` of the request, as a broken provider does. `cached_share`, from 0 to 1, of the
    prompt tokens was read from the provider's cache.
    """

    per_byte: bool = False
    reasoning: int = 0
    ignore_ceiling: bool = False
    cached_share: float = 0

    def count(self, text: str) -> int:
        """Return the tokens of `text`: ceil(UTF-8 bytes / 4), or its bytes."""
        size = utf8_length(text)
        return size if self.per_byte else -(-size // _BYTES_PER_TOKEN)

    def cached(self, prompt_tokens: int) -> int:
        """Return how many of the prompt tokens were read from the cache."""
        return int(prompt_tokens * self.cached_share)

    def fit(self, text: str, ceiling: int | None) -> tuple[str, int, bool]:
        """Return what of `text` fits, the completion tokens, and whether it was cut.

        The hidden reasoning tokens are part of the completion tokens and use up the ceiling first.
        """
        wanted = self.count(text)
        if ceiling is None or self.ignore_ceiling or self.reasoning + wanted <= ceiling:
            return text, self.reasoning + wanted, False
        return self._cut(text, max(0, ceiling - self.reasoning)), ceiling, True

    def _cut(self, text: str, tokens: int) -> str:
        size = tokens if self.per_byte else tokens * _BYTES_PER_TOKEN
        return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")


def utf8_length(text: str) -> int:
    """Return the UTF-8 bytes of `text` (a lone surrogate counts three)."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
