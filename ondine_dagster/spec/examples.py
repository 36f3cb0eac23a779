"""Examples: questions with the answers that they should have, shown to the model before a row."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from ondine_dagster.spec.base import QUESTION, VERBATIM, Part
from ondine_dagster.spec.problems import Location, shown


def _text_or_mapping(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, dict) and value and all(isinstance(name, str) for name in value):
        return value
    raise ValueError(f"is {shown(value)}; it must be text that is not empty, or a mapping")


_TextOrMapping = Annotated[str | dict[str, Any], BeforeValidator(_text_or_mapping)]


class Example(Part):
    """One question and its answer. They are sent as messages of their own, before each row's."""

    place: ClassVar[Location] = ("prompt", "examples")

    input: Annotated[_TextOrMapping, QUESTION, VERBATIM] = Field(
        description="What is asked: columns with their values, from which the template makes the "
        "message, or the message itself as text.",
        examples=[{"review": "Broken on arrival."}, "Review: Broken on arrival."],
    )
    output: Annotated[_TextOrMapping, QUESTION, VERBATIM] = Field(
        description="The right answer: the declared fields with their values, or text. It must be "
        "an answer that would be accepted.",
        examples=[{"sentiment": "negative", "score": 0}, "negative"],
    )
