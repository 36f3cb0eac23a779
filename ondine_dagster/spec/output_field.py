"""One field of an answer: its type, what is asked of the model, and what is accepted of it.

Most of it is sent to the model as a JSON schema. `column`, `synonyms` and `accept` are local: they
rename, unite and narrow, and cost nothing to change.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from ondine_dagster.patterns import OwnPattern
from ondine_dagster.spec.accept import (
    Accept,
    AcceptList,
    AcceptPattern,
    AcceptRange,
    refuse_crossed,
)
from ondine_dagster.spec.base import LOCAL, QUESTION, VERBATIM, FilledText, Flag, Number, Part
from ondine_dagster.spec.choice import Synonyms, refuse_double_meaning
from ondine_dagster.spec.columns import output_column
from ondine_dagster.spec.keys import FIELD_TYPES_NOT_SUPPORTED_YET
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.values import FieldType, ListedValue, belongs, complaint, outside

_NUMBERS = ("integer", "number")
_NESTED = ("object", "array")
# the providers that constrain an answer take no deeper schema
# https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_DEEPEST = 10
_OTHER_TYPES = {"list": "array", "dict": "object"}


def _built_type(value: Any) -> Any:
    if isinstance(value, str) and value in FIELD_TYPES_NOT_SUPPORTED_YET:
        raise ValueError(
            f"is {shown(value)}, which is not supported yet; it must be one of 'string', "
            "'integer', 'number', 'boolean', 'object' or 'array'"
        )
    if isinstance(value, str) and value in _OTHER_TYPES:
        raise ValueError(f"is {shown(value)}; did you mean {_OTHER_TYPES[value]!r}?")
    return value


Column = Annotated[FilledText, AfterValidator(output_column)]


class NestedField(Part):
    """A property of an object, or the items of an array: what the model is asked for."""

    place: ClassVar[Location] = ("output", "fields", "*", "properties", "*")

    type: Annotated[FieldType, BeforeValidator(_built_type), QUESTION] = Field(
        description="string, integer, number, boolean, object (with `properties`) or array (with "
        "`items`).",
        examples=["string"],
    )
    enum: Annotated[tuple[ListedValue, ...] | None, QUESTION, VERBATIM] = Field(
        default=None,
        description="The only values that the model may give, of the field's type.",
        examples=[["positive", "negative", "neutral"]],
    )
    minimum: Annotated[Number | None, QUESTION] = Field(
        default=None, description="The lowest number that the model may give.", examples=[0]
    )
    maximum: Annotated[Number | None, QUESTION] = Field(
        default=None, description="The highest number that the model may give.", examples=[10]
    )
    description: Annotated[FilledText | None, QUESTION, VERBATIM] = Field(
        default=None,
        description="What the field means, in words for the model.",
        examples=["How satisfied the customer is, 0 to 10."],
    )
    required: Annotated[Flag, QUESTION] = Field(
        default=True,
        description="Whether an answer without this field is rejected. If not, it may be NULL.",
        examples=[False],
    )
    properties: dict[FilledText, NestedField] = Field(
        default={},
        description="What an object holds, by name; each with a type of its own.",
    )
    items: NestedField | None = Field(
        default=None, description="What each item of an array is; with a type of its own."
    )

    def refuse_contradictions(self) -> None:
        """Compare bounds, enum and nesting with the type."""
        self._check_bounds()
        self._check_enum()
        self._check_nesting()

    def _check_bounds(self) -> None:
        for name, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.type not in _NUMBERS:
                text = f"is {bound}, but the field is a {self.type}; bounds are for numbers"
                raise refused_at((name,), text, bound)
            if not belongs(bound, self.type):
                text = f"is {bound}; it must be a whole number, as the field is an integer"
                raise refused_at((name,), text, bound)
        refuse_crossed(self.minimum, self.maximum)

    def _check_enum(self) -> None:
        if self.enum is None:
            return
        text = complaint(self.enum, self.type)
        if self.type in _NESTED:
            text = f"is for strings and numbers, but the field is an {self.type}"
        if self.type == "boolean":
            text = "is for strings and numbers; a boolean is true or false anyway: remove it"
        beyond = [value for value in self.enum if outside(value, self.minimum, self.maximum)]
        if not text and beyond:
            text = f"lists {shown(beyond[0])}, which lies outside minimum and maximum"
        if text:
            raise refused_at(("enum",), text, self.enum)

    def _check_nesting(self) -> None:
        wanted = {"object": "properties", "array": "items"}
        for kind, key in wanted.items():
            given = bool(getattr(self, key))
            if given and self.type != kind:
                text = f"is for the type {kind}, but the field is of type {self.type}"
                raise refused_at((key,), text, None)
            if not given and self.type == kind:
                text = f"is missing; say what the {kind} holds"
                raise refused_at((key,), text, None)
        if self.depth > _DEEPEST:
            text = f"is nested {self.depth} levels deep; it must be at most {_DEEPEST}"
            raise refused_at((), text, None)

    @property
    def depth(self) -> int:
        """How many levels of objects and arrays there are, this one included."""
        inside = [*self.properties.values(), *filter(None, [self.items])]
        return 1 + max((one.depth for one in inside), default=0)


class OutputField(NestedField):
    """One field of the answer, and the output column that it becomes."""

    place: ClassVar[Location] = ("output", "fields", "*")

    column: Annotated[Column | None, LOCAL] = Field(
        default=None,
        description="The name of the output column. Default: the field's name.",
        examples=["stars"],
    )
    synonyms: Annotated[Synonyms | None, LOCAL, VERBATIM] = Field(
        default=None,
        description="Other words that count as a value: the value, and the words. Capitals and "
        "punctuation round them make no difference. The model does not see them.",
        examples=[{"positive": ["good", "great"], "negative": ["bad"]}],
    )
    accept: Annotated[Accept | None, LOCAL, VERBATIM] = Field(
        default=None,
        description="Which answers to accept: a list of values, `{minimum, maximum}` or "
        "`{pattern}`. Others are rejected, with their raw text. The model does not see it.",
        examples=[["positive", "negative"], {"minimum": 1, "maximum": 5}],
    )

    @property
    def is_choice(self) -> bool:
        """Whether the values are few: listed ones, true and false, or whole numbers."""
        listed = self.enum is not None or self.synonyms is not None
        return listed or self.type in ("boolean", "integer") or isinstance(self.accept, AcceptList)

    def refuse_contradictions(self) -> None:
        """Compare bounds, enum, synonyms and accept with the type and with each other."""
        super().refuse_contradictions()
        self._check_synonyms()
        self._check_accept()

    def _check_synonyms(self) -> None:
        if self.synonyms is None:
            return
        if self.type != "string":
            text = f"are for strings, but the field is of type {self.type}"
            raise refused_at(("synonyms",), text, None)
        known = self.enum if self.enum is not None else tuple(self.synonyms)
        if strange := [value for value in self.synonyms if value not in known]:
            text = f"name {shown(strange[0])}, which is not in enum"
            raise refused_at(("synonyms",), text, None)
        refuse_double_meaning({**dict.fromkeys(map(str, known), ()), **self.synonyms}, "synonyms")

    def _check_accept(self) -> None:
        text = None
        if self.accept is not None and self.type in _NESTED:
            text = f"is for texts and numbers, but the field is an {self.type}"
        elif isinstance(self.accept, AcceptList):
            text = complaint(self.accept.values, self.type) or self._beyond(self.accept)
        elif isinstance(self.accept, AcceptRange) and self.type not in _NUMBERS:
            text = f"has bounds, but the field is a {self.type}; bounds are for numbers"
        elif isinstance(self.accept, AcceptPattern) and self.type != "string":
            text = f"has a pattern, but the field is of type {self.type}; patterns are for strings"
        if text is None and self._accepts_nothing():
            text = "accepts no value that the model may give; widen it, or change the field"
        if text:
            raise refused_at(("accept",), text, self.accept)

    def _beyond(self, accept: AcceptList) -> str | None:
        """Return which listed value the model may not give anyway, if there is one."""
        for value in accept.values:
            if self.enum is not None and value not in self.enum:
                return f"lists {shown(value)}, which is not in enum"
            if outside(value, self.minimum, self.maximum):
                return f"lists {shown(value)}, which lies outside minimum and maximum"
        return None

    def _accepts_nothing(self) -> bool:
        """Return whether a rule and what the model may give have nothing in common."""
        rule, allowed = self.accept, self.enum
        if isinstance(rule, AcceptPattern):
            fits = OwnPattern(rule.pattern).fullmatch
            return allowed is not None and not any(fits(str(value)) for value in allowed)
        if not isinstance(rule, AcceptRange):
            return False
        if allowed is not None:
            return all(outside(value, rule.minimum, rule.maximum) for value in allowed)
        lows = [bound for bound in (self.minimum, rule.minimum) if bound is not None]
        highs = [bound for bound in (self.maximum, rule.maximum) if bound is not None]
        return bool(lows and highs) and max(lows) > min(highs)
