"""What a prompt consists of, in tokens: what all rows share, what is each row's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.ledger.estimates import Estimator
from ondine_dagster.llm.prompt_cache import CacheMinimum, cache_minimum
from ondine_dagster.privacy.scrubbing import beginning

# of a message, and examples: what Dagster keeps of each partition has to stay small
_SHOWN_CHARACTERS, _SHOWN_EXAMPLES = 2_000, 1


@dataclass(frozen=True, slots=True)
class PromptParts:
    """The messages of one row, and their tokens as far as they are known before it is asked.

    `rest` is what stands round the messages: what asks for the fields, files, settings.
    """

    messages: tuple[Mapping[str, Any], ...]
    system: int
    examples: int
    user: int
    rest: int

    @property
    def tokens(self) -> dict[str, int]:
        """Return the tokens by part, and of all."""
        parts = {"system": self.system, "examples": self.examples, "user": self.user}
        return parts | {"rest": self.rest, "all": sum(parts.values()) + self.rest}


def parts_of(messages_json: str, estimator: Estimator) -> PromptParts:
    """Return what canonical JSON of messages consists of."""
    messages = json.loads(messages_json)
    sizes = [estimator.tokens_in(one["content"]) for one in messages]
    first = int(messages[0]["role"] == "system")
    known = (sum(sizes[:first]), sum(sizes[first:-1]), sizes[-1])
    rest = max(0, estimator.tokens_of(messages_json) - sum(known))
    return PromptParts(tuple(messages), *known, rest)


def shown(parts: PromptParts) -> str:
    """Return a prompt as Markdown: the beginning of long messages, and of the examples the first.

    A fence keeps a row's text from being read as Markdown.
    """
    counts = (f"{name}: about {tokens:,}" for name, tokens in parts.tokens.items() if tokens)
    first = int(parts.messages[0]["role"] == "system")
    last = len(parts.messages) - 1
    blocks = [f"Tokens of {'; '.join(counts)}"]
    for number, one in enumerate(parts.messages):
        if first + 2 * _SHOWN_EXAMPLES <= number < last:
            if number == first + 2 * _SHOWN_EXAMPLES:
                blocks.append(f"and {(last - number) // 2} more examples")
            continue
        blocks.append(f"**{one['role']}**\n\n{_fenced(one['content'])}")
    return "\n\n".join(blocks)


def _fenced(text: str) -> str:
    cut = beginning(text, _SHOWN_CHARACTERS + 1, "…")
    longest = max(map(len, re.findall("`+", cut)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{cut}\n{fence}"


def cache_remarks(pipeline: Pipeline, estimator: Estimator) -> Iterator[str]:
    """Yield what keeps a provider's cache from what all rows share; nothing where all is well."""
    minimum = cache_minimum(pipeline.dataset.llm)
    if minimum is None:
        return
    renderer, model = pipeline.renderer, pipeline.provider.model
    if renderer.system_columns:
        names = ", ".join(sorted(renderer.system_columns))
        yield (
            f"The system message names {names}, so it differs by row, and {model} caches only what "
            "is the same: name columns in the template alone."
        )
        return
    same = estimator.tokens_around + estimator.tokens_in(renderer.static_json)
    ends = renderer.static_text.head, renderer.static_text.tail
    head, tail = map(estimator.tokens_in, ends)
    movable = tail if minimum.whole_prefix else head + tail
    same += head if minimum.whole_prefix else 0
    if same >= minimum.tokens:
        if movable >= minimum.tokens:
            yield _move(movable, model)
    elif same + movable >= minimum.tokens:
        yield _move(movable, model)
    else:
        yield _too_short(same, minimum, model)


def _move(tokens: int, model: str) -> str:
    return (
        f"About {tokens:,} tokens of the template are the same for all rows, but do not stand at "
        f"the start, where {model} would cache them: put them into the system message."
    )


def _too_short(tokens: int, minimum: CacheMinimum, model: str) -> str:
    return (
        f"About {tokens:,} tokens are the same for all rows. {model} caches them from "
        f"{minimum.tokens:,} on, so each request pays for all of it ({minimum.url})."
    )
