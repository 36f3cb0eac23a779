"""How long an answer probably is before there is one: what its form says of it. Pure.

For people, and for the first packs: what is set aside for an answer is its ceiling. A model that
thinks before it answers is paid for its thoughts too, and no form tells of those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Llm, Output
from ondine_dagster.spec.output_field import NestedField

# JSON is full of punctuation: short objects come to less than the four bytes of English
_BYTES_PER_TOKEN = 3
_STRING_BYTES, _INTEGER_BYTES, _NUMBER_BYTES, _BOOLEAN_BYTES, _ITEMS = 100, 3, 5, 5, 3
# the last part of a name, whoever serves the model
_THINKS = re.compile(
    r"o[134](-.*)?|gpt-5(?!.*-chat).*|gpt-oss-.*|deepseek-(r1|reasoner).*|.*thinking.*|qwq.*"
    r"|qwen3(?!.*(instruct|coder)).*|grok-(3-mini|4).*|gemini-(2\.5|3).*|magistral.*|glm-(4\.[5-9]|5).*"
)


def likely_tokens(llm: Llm, output: Output) -> float | None:
    """Return the completion tokens of one answer; None where its form says nothing of them."""
    if thinks(llm):
        return None
    if output.fields:
        return _object(output.fields) / _BYTES_PER_TOKEN
    if output.choice is not None and not output.choice.anywhere:
        return sum(map(_bytes, output.choice.values)) / len(output.choice.values) / _BYTES_PER_TOKEN
    return None


def thinks(llm: Llm) -> bool:
    """Return whether a model thinks before it answers, as far as that is known."""
    thinking = getattr(llm.own, "thinking", None)
    if thinking is not None:
        return bool(thinking != "disabled")
    effort = getattr(llm.own, "reasoning_effort", None)
    if effort is not None:
        return effort not in ("none", "minimal")
    return _THINKS.fullmatch(llm.known_as.lower().rpartition("/")[2]) is not None


def _object(fields: Mapping[str, NestedField]) -> float:
    """Return the bytes of an object as compact JSON; those of a name are `"name":` and a comma."""
    return 1 + sum(_bytes(name) + 4 + _value(field) for name, field in fields.items())


def _value(field: NestedField) -> float:
    if field.enum:
        return sum(len(compact_json(one).encode()) for one in field.enum) / len(field.enum)
    if field.properties:
        return _object(field.properties)
    if field.items is not None:
        return 1 + _ITEMS * (1 + _value(field.items))
    if field.type == "integer" and field.maximum is not None:
        return len(str(field.maximum))
    return {"integer": _INTEGER_BYTES, "number": _NUMBER_BYTES, "boolean": _BOOLEAN_BYTES}.get(
        field.type, _STRING_BYTES
    )


def _bytes(text: str) -> int:
    return len(text.encode())
