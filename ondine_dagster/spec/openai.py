"""The settings of `llm` that only OpenAI has."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.base import LOCAL, QUESTION, REQUEST, TEMPLATED, FilledText, Part
from ondine_dagster.spec.problems import Location


class OpenAISettings(Part):
    """What only OpenAI has. Keys of a project or an organisation need neither of the two headers.

    https://platform.openai.com/docs/api-reference/chat/create
    """

    place: ClassVar[Location] = ("llm", "openai")

    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None, QUESTION
    ] = Field(
        default=None,
        description="How long a reasoning model thinks. What it thinks is paid as completion "
        "tokens and counts towards `max_tokens`. Not sent when absent.",
        examples=["low"],
    )
    service_tier: Annotated[Literal["auto", "default", "flex", "priority"] | None, REQUEST] = Field(
        default=None,
        description="How soon requests are served, at prices of their own: `flex` when there is "
        "room, `priority` before others, `auto` as the project is set. What a request costs "
        "depends on how it was served. Not sent when absent.",
        examples=["flex"],
    )
    organization: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="The organisation whose quota is used, where the key has several.",
        examples=["org-3f9Kx"],
    )
    project: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="The project whose quota is used, where the key has several.",
        examples=["proj_3f9Kx"],
    )
