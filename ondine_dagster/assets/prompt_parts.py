"""What a prompt consists of, in tokens: what all rows share, what is each row's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.ledger.estimates import Estimator
from ondine_dagster.llm.prompt_cache import CacheMinimum, cache_minimum

_SHOWN_CHARACTERS = 2_000


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
    """Return a prompt as Markdown, its beginning where it is long."""
    lines = [f"{name}: about {tokens:,} tokens" for name, tokens in parts.tokens.items() if tokens]
    blocks = [f"{'; '.join(lines)}"]
    for one in parts.messages:
        text = one["content"]
        cut = text[:_SHOWN_CHARACTERS] + ("…" if len(text) > _SHOWN_CHARACTERS else "")
        quoted = "\n".join(f"> {line}" for line in cut.split("\n"))
        blocks.append(f"**{one['role']}**\n\n{quoted}")
    return "\n\n".join(blocks)


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
    head, tail = (estimator.tokens_in(text) for text in renderer.ends)
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
