"""The settings of `llm` that only Anthropic has, and what its models do not take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.base import QUESTION, REQUEST, Part
from ondine_dagster.spec.problems import Location

CacheTime = Literal["5m", "1h", "none"]

# Models that pick their words by themselves, and those that can be told one of two ways how
# (https://platform.claude.com/docs/en/about-claude/models/migration-guide)
_NO_SAMPLING = re.compile(r"claude-(opus-4-[78]|(opus|sonnet|haiku)-5|fable|mythos)\b.*")
_ONE_OF_TWO = re.compile(r"claude-(opus-4-1|(opus|sonnet|haiku)-4-[56])\b.*")


class AnthropicSettings(Part):
    """What only Anthropic has. https://platform.claude.com/docs/en/api/messages"""

    place: ClassVar[Location] = ("llm", "anthropic")

    cache: Annotated[CacheTime, REQUEST] = Field(
        default="5m",
        description="How long Anthropic keeps what is the same for all rows, system message and "
        "examples, after its last use. Writing it costs 1.25 times other input, 2 times for `1h`; "
        "reading it a tenth. A system message that names columns is never written.",
        examples=["1h"],
    )
    thinking: Annotated[Literal["adaptive", "disabled", "between_tools"] | None, QUESTION] = Field(
        default=None,
        description="Whether the model thinks before it answers; which of these a model takes "
        "differs. What it thinks is paid as completion tokens and counts towards `max_tokens`. Not "
        "sent when absent: models from Claude 5 on think then.",
        examples=["disabled"],
    )
    effort: Annotated[Literal["low", "medium", "high", "xhigh", "max"] | None, QUESTION] = Field(
        default=None,
        description="How much work the model puts into an answer. Not sent when absent.",
        examples=["low"],
    )


def not_taken(model: str, declared: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of `llm` that Anthropic, or this model of it, does not take, and why.

    `declared` are those that are set.
    """
    for setting, value in declared.items():
        if (text := _refusal(setting, value, model.lower(), declared)) is not None:
            yield setting, f"is {value}; {text}"


def _refusal(setting: str, value: Any, model: str, declared: Mapping[str, Any]) -> str | None:
    """Return what to say of a setting, None where it is right."""
    if setting == "seed":
        return "Anthropic has no seed: remove it"
    if setting == "max_tokens_field":
        return None if value == "max_tokens" else "Anthropic has max_tokens alone: remove it"
    if setting == "structured" and value == "json_object":
        return "Anthropic has no JSON mode: it must be one of json_schema, tools, prompt"
    if setting == "temperature" and value > 1:
        return "Anthropic takes 0 to 1"
    if setting not in ("temperature", "top_p"):
        return None
    if _NO_SAMPLING.fullmatch(model) and (setting, value) != ("temperature", 1):
        return f"{model} takes no {setting}: remove it"
    if setting == "top_p" and "temperature" in declared and _ONE_OF_TWO.fullmatch(model):
        return f"{model} takes either temperature or top_p: remove one of them"
    return None
