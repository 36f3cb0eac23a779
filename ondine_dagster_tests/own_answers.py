"""Code as a user may write it, for declarations that name it by import path."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator


class Line(BaseModel):
    """One line of an invoice."""

    article: str
    amount: int = Field(gt=0, description="How many pieces.")
    discount: float | None = None


class Invoice(BaseModel):
    """What a model should read from an invoice."""

    number: str = Field(pattern="[A-Z]-[0-9]+")
    currency: Literal["EUR", "USD"]
    lines: list[Line]

    @field_validator("number", mode="before")
    @classmethod
    def _in_capitals(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value


class Labelled(BaseModel):
    """A label alone."""

    label: str


class Rated(BaseModel):
    """A label with a score."""

    label: str
    score: int


class Watcher:
    """An observer that does nothing."""

    def on_event(self, event: object) -> None:
        """Take in an event."""


class OtherWatcher(Watcher):
    """Another one."""


def first_word(text: str) -> str:
    """Return the first word; refuses an answer without one."""
    if not text.strip():
        raise ValueError("there is no word")
    return text.split()[0]


def count_words(text: str) -> dict[str, Any]:
    """Return how many words there are, and which."""
    words = text.split()
    return {"words": len(words), "first": words[0], "all": words}


def last_word(text: str) -> str:
    """Return the last word; fails where there is none."""
    return text.split()[-1]


def only_good(text: str) -> str:
    """Accept one answer, and say which."""
    if text != "good":
        raise ValueError("it is no [[token=good]]")
    return text
