"""How the text of a column is tidied before it goes into the prompt."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ondine_dagster.spec.base import QUESTION, VERBATIM, Part, Text, Whole
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.tokens import MARKER


class Clean(Part):
    """What is done to one column's text before it is asked about, in this order. Nothing is done
    unless it stands here; the source's own columns stay as they are, and changed rows are counted.
    """

    place: ClassVar[Location] = ("prompt", "clean", "*")

    unicode: Annotated[Literal["nfc"] | None, QUESTION] = Field(
        default=None,
        description="`nfc`: letters with marks become one code point each, so that texts that look "
        "alike are alike.",
        examples=["nfc"],
    )
    control_characters: Annotated[Literal["remove", "space"] | None, QUESTION] = Field(
        default=None,
        description="Control characters, apart from tabs and line breaks, are removed or become a "
        "space.",
        examples=["remove"],
    )
    white_space: Annotated[Literal["trim", "collapse"] | None, QUESTION] = Field(
        default=None,
        description="`trim`: white space at both ends goes. `collapse`: and each run of it, line "
        "breaks too, becomes one space.",
        examples=["collapse"],
    )
    truncate_tokens: Annotated[Whole | None, QUESTION] = Field(
        default=None,
        ge=1,
        description="The most tokens of the text, the marker included, four bytes of UTF-8 counted "
        "as one.",
        examples=[500],
    )
    marker: Annotated[Text, QUESTION, VERBATIM] = Field(
        default=MARKER,
        description="What stands at the end of a text that was truncated.",
        examples=[" [cut]"],
    )

    def refuse_contradictions(self) -> None:
        """Refuse an empty section, and a marker where nothing is truncated."""
        if self.truncate_tokens is None and "marker" in self.model_fields_set:
            text = f"is {shown(self.marker)}, but nothing is cut without truncate_tokens"
            raise refused_at(("marker",), text, self.marker)
        if not any((self.unicode, self.control_characters, self.white_space, self.truncate_tokens)):
            raise refused_at((), "says nothing to do; remove it", None)
