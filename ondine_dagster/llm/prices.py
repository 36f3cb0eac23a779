"""What tokens cost, in integer picodollars (1e-12 USD).

Owns the conversion from declared USD prices to integers and the arithmetic of cost and worst case.
Money is never a float here or anywhere behind this module: a float loses cents over a million rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

PICODOLLARS_PER_USD = 10**12
_MILLION = 10**6


def picodollars(usd: Decimal) -> int:
    """Return `usd` as integer picodollars, rounded up (a cost is never understated)."""
    return int((usd * PICODOLLARS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def usd(pico: int) -> Decimal:
    """Return integer picodollars as an exact USD amount."""
    return Decimal(pico).scaleb(-12)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one model: picodollars per million tokens, and per request.

    `cached_input` is the rate of prompt tokens that the provider read from its cache; they are a
    subset of the prompt tokens.
    """

    input: int
    output: int
    cached_input: int
    request: int = 0

    @classmethod
    def per_million_usd(
        cls,
        input: Decimal,
        output: Decimal,
        cached_input: Decimal | None = None,
        request: Decimal = Decimal(0),
    ) -> Prices:
        """Build from USD per million tokens (`request`: USD per request)."""
        return cls(
            input=picodollars(input),
            output=picodollars(output),
            cached_input=picodollars(input if cached_input is None else cached_input),
            request=picodollars(request),
        )

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """Return picodollars for one answered request, rounded up."""
        cached = min(cached_tokens, prompt_tokens)
        micro = (
            (prompt_tokens - cached) * self.input
            + cached * self.cached_input
            + completion_tokens * self.output
        )
        return -(-micro // _MILLION) + self.request

    def worst_case(self, prompt_tokens_bound: int, ceiling: int) -> int:
        """Return the picodollars that a request can cost at most.

        `prompt_tokens_bound` is an upper bound of the prompt tokens (one token per byte is the
        only safe one), `ceiling` the most completion tokens that the provider may bill.
        """
        dearest_input = max(self.input, self.cached_input)
        micro = prompt_tokens_bound * dearest_input + ceiling * self.output
        return -(-micro // _MILLION) + self.request
