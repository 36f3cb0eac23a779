"""The texts of a prompt as they are now, those from files among them. Others read the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError

from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Prompt, format_errors
from ondine_dagster.spec.examples import Example
from ondine_dagster.spec.templates import Style, as_jinja, style_of

# Why an answer would not be accepted, None where it would be.
Judge = Callable[[str], str | None]


class ExampleError(ValueError):
    """An example cannot be shown; the message says which and why."""


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """What a prompt says. `template` and `system` are as written, in `style`."""

    template: str
    system: str | None = None
    style: Style = "jinja"
    partials: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Example] = ()

    @property
    def jinja(self) -> tuple[str | None, str]:
        """Return system message and template as Jinja reads them."""
        system = None if self.system is None else as_jinja(self.system, self.style)
        return system, as_jinja(self.template, self.style)

    def question(self) -> dict[str, Any]:
        """Return what decides the messages beside system message and template, if it is there."""
        listed = [one.model_dump(mode="json") for one in self.examples]
        found = {"partials": dict(self.partials), "examples": listed}
        style = {"style": self.style} if self.style != "jinja" else {}
        return style | {name: value for name, value in found.items() if value}


def texts_of(prompt: Prompt) -> PromptTexts:
    """Return the texts of a prompt that has them all itself."""
    template = prompt.template
    assert template is not None, "the template is in a file"
    style = style_of(filter(None, (prompt.system, template)), prompt.style)
    return PromptTexts(template, prompt.system, style, {}, prompt.examples)


def example_of(value: Any) -> Example:
    """Return an example from a file or a cell.

    Raises:
        ExampleError: it is no mapping with `input` and `output`.
    """
    if not isinstance(value, Mapping):
        raise ExampleError("is no mapping with `input` and `output`")
    try:
        return Example.model_validate(dict(value))
    except ValidationError as error:
        raise ExampleError("; ".join(one.message for one in format_errors(error))) from None


def examples_in(cell: Any) -> list[Example]:
    """Return the examples of a cell: a list, or JSON of one; NULL and blank text have none.

    Raises:
        ExampleError: it is something else.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return []
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise ExampleError(f"is no JSON: {error}") from None
    if not isinstance(cell, list):
        raise ExampleError("is no list of examples")
    return [example_of(one) for one in cell]


def pairs_json(
    examples: Iterable[Example], message: Callable[[Mapping[str, Any]], str], judge: Judge | None
) -> str:
    """Return the messages of examples as canonical JSON, each with a comma behind it.

    `message` makes the user's message of a row.

    Raises:
        ExampleError: a message cannot be rendered, or an answer would not be accepted.
    """
    parts = []
    for number, one in enumerate(examples, start=1):
        try:
            text = one.input if isinstance(one.input, str) else message(one.input)
        except TemplateError as error:
            raise ExampleError(f"number {number} cannot be rendered: {error}") from None
        answer = one.output if isinstance(one.output, str) else compact_json(one.output)
        if judge is not None and (why := judge(answer)) is not None:
            raise ExampleError(f"number {number} has an answer that would be rejected: {why}")
        parts.append(f'{{"content":{compact_json(text)},"role":"user"}},')
        parts.append(f'{{"content":{compact_json(answer)},"role":"assistant"}},')
    return "".join(parts)
