"""Words that count as one of a few values: free text becomes a choice.

Owns what makes two words the same here: capitals, the form of accents, and punctuation or white
space round them make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ondine_dagster.spec.base import LOCAL, VERBATIM, FilledText, Flag, Part
from ondine_dagster.spec.problems import Location, refused_at, shown

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


def folded(text: str) -> str:
    """Return what texts have in common that differ in capitals and the form of accents alone."""
    return unicodedata.normalize("NFC", text.casefold())


def same_word(text: str) -> str:
    """Return what texts have in common that are the same word; a text of signs stays itself."""
    plain = folded(text).strip()
    return _EDGES.sub("", plain) or plain


def _listed(value: Any) -> Any:
    """Return the long form of a list of values, which have no other words."""
    return dict.fromkeys(value, ()) if isinstance(value, list | tuple) else value


Synonyms = dict[FilledText, tuple[FilledText, ...]]
_Values = Annotated[Synonyms, BeforeValidator(_listed)]


def refuse_double_meaning(values: Mapping[str, Iterable[str]], *place: str) -> None:
    """Raise if a word stands for two values."""
    meanings: dict[str, str] = {}
    for value, words in values.items():
        for word in (value, *words):
            other = meanings.setdefault(same_word(word), value)
            if other != value:
                text = f"take {shown(word)} for {shown(other)} and for {shown(value)}; remove one"
                raise refused_at(place, text, None)


class Choice(Part):
    """One of a few values, from an answer in free text. Words that are none of them: rejected."""

    place: ClassVar[Location] = ("output", "choice")

    values: Annotated[_Values, LOCAL, VERBATIM] = Field(
        description="The values, as a list, or each with other words for it.",
        examples=[{"positive": ["good", "great"], "negative": ["bad"]}, ["yes", "no"]],
    )
    anywhere: Annotated[Flag, LOCAL] = Field(
        default=False,
        description='Whether a value may stand among other words: "It is rather bad." An answer '
        "that names two values is rejected. Default: the whole answer is the word.",
        examples=[True],
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The values alone, or with their words, are a choice too."""
        long = handler.resolve_ref_schema(handler(core_schema))
        words = {"type": "array", "items": {"type": "string"}}
        values = {"type": "object", "additionalProperties": words}
        long["properties"]["values"] |= {"type": ["object", "array"]}
        return {"anyOf": [long, values, words]}

    @classmethod
    def written_out(cls, data: Any, context: Mapping[str, Any]) -> Any:
        """Take a list, or a mapping of lists, as the values themselves."""
        values_alone = isinstance(data, list | tuple) or (
            isinstance(data, dict) and data and "values" not in data and "anywhere" not in data
        )
        return {"values": data} if values_alone else data

    def refuse_contradictions(self) -> None:
        """Refuse a choice of nothing, and a word with two meanings."""
        if not self.values:
            raise refused_at(("values",), "are empty; list at least one", None)
        refuse_double_meaning(self.values, "values")
