"""How many tokens a model can put out in one answer, as far as that is known. Pure.

Asked for more, a provider refuses the request. A model is found by its name; what is not in the
table has no known limit.
"""

from __future__ import annotations

import re

from ondine_dagster.llm.price_table import provider_at
from ondine_dagster.spec import Llm

# https://platform.openai.com/docs/models
_OPENAI = (
    (r"gpt-4o-2024-05-13|gpt-4-turbo.*|gpt-4-(1106|0125).*|gpt-3\.5.*", 4_096),
    (r"gpt-4|gpt-4-0613|gpt-4-0314", 8_192),
    (r"gpt-4o.*|gpt-5(\.\d)?-chat.*", 16_384),
    (r"gpt-4\.1.*|o1-preview.*", 32_768),
    (r"o1-mini.*", 65_536),
    (r"o[134](-.*)?", 100_000),
    (r"gpt-5.*", 128_000),
)
# https://platform.claude.com/docs/en/about-claude/models/overview
_ANTHROPIC = (
    (r"claude-(2|instant).*|claude-3-(haiku|opus|sonnet).*", 4_096),
    (r"claude-3[-.]5.*", 8_192),
    (r"claude-opus-4(-[01])?(-20\d{6})?", 32_000),
    (r"claude-3[-.]7.*|claude-(haiku|sonnet|opus)-4.*", 64_000),
)
_TABLE = [
    (maker, re.compile(pattern), most)
    for maker, models in (("openai", _OPENAI), ("anthropic", _ANTHROPIC))
    for pattern, most in models
]
_MAKER = {"azure": "openai"}


def most_completion_tokens(llm: Llm) -> int | None:
    """Return how many tokens an answer can have at most; None where nobody knows."""
    provider, name = llm.entry.prices or provider_at(llm.endpoint), llm.known_as.lower()
    maker = _MAKER.get(provider or "", provider)
    if maker == "openrouter":  # it passes on to whom it names first
        maker, _, name = name.partition("/")
    found = (most for who, model, most in _TABLE if who == maker and model.fullmatch(name))
    return next(found, None)
