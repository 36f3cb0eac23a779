"""Where personal data and secrets are taken out: before the provider, in what is shown, at rest."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ondine_dagster.spec.accept import compiles
from ondine_dagster.spec.base import LOCAL, QUESTION, VERBATIM, FilledText, Flag, Part
from ondine_dagster.spec.problems import Location, refused_at, shown

Detected = Literal["secret", "email", "iban", "card", "ssn", "ip", "phone"]
ALL_DETECTED: tuple[Detected, ...] = ("secret", "email", "iban", "card", "ssn", "ip", "phone")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in ALL_DETECTED:
        raise ValueError(
            f"is {shown(name)}; a pattern's name has small letters, digits and _, and is none of "
            f"{', '.join(ALL_DETECTED)}"
        )
    return name


class Privacy(Part):
    """What is taken out of texts, and where. Names of people have no form and are not found."""

    place: ClassVar[Location] = ("privacy",)

    prompt: Annotated[Literal["keep", "placeholders", "remove"], QUESTION] = Field(
        default="keep",
        description="What the provider sees of it. `placeholders`: `[EMAIL_1]` is sent, and "
        "the row's own value is put back into its answer. `remove`: `[EMAIL]` is sent, and "
        "nothing is put back. `keep`: all of it.",
        examples=["placeholders"],
    )
    detect: Annotated[tuple[Detected, ...], QUESTION] = Field(
        default=ALL_DETECTED,
        description="What is looked for. Part of the question only where `prompt` is not `keep`.",
        examples=[["email", "phone"]],
    )
    patterns: Annotated[
        dict[
            Annotated[str, AfterValidator(_name)],
            Annotated[FilledText, AfterValidator(compiles)],
        ],
        QUESTION,
        VERBATIM,
    ] = Field(
        default={},
        description="What else is looked for, before everything else: regular expressions "
        "(Python's) by name. Part of the question only where `prompt` is not `keep`.",
        examples=[{"customer": "KD-[0-9]{6}"}],
    )
    shown: Annotated[Flag, LOCAL] = Field(
        default=True,
        description="Whether it is taken out of what is shown: traces, logs, and what Dagster "
        "keeps with an asset.",
        examples=[False],
    )
    at_rest: Annotated[Flag, LOCAL] = Field(
        default=False,
        description="Whether `results` and `rejected_rows` are written without it, source "
        "columns too. Takes `prompt: placeholders` or `remove`, so that prompts and answers "
        "are stored without it as well. `raw_rows` and the snapshot stay as the source is.",
        examples=[True],
    )

    def refuse_contradictions(self) -> None:
        """Refuse nothing to look for, and files that would hold what is taken out of others."""
        if self.at_rest and self.prompt == "keep":
            text = (
                "is true, but with `prompt: keep` the stored prompts and answers hold it all; "
                "declare privacy.prompt: remove, or placeholders"
            )
            raise refused_at(("at_rest",), text, True)
        if self.prompt != "keep" and not self.detect and not self.patterns:
            raise refused_at(("detect",), "names nothing to look for, and no patterns do", [])

    def question(self) -> dict[str, Any]:
        """Return what decides the messages, where this section does."""
        if self.prompt == "keep":
            return {}
        return {
            "privacy": {
                "prompt": self.prompt,
                "detect": sorted(self.detect),
                "patterns": dict(self.patterns),
            }
        }
