"""Renders a row into messages: Jinja in an immutable sandbox, pure.

A cell's text is a value and never a template. NULL renders as nothing, an unknown name is an
error of the row, and so is a prompt whose every referenced cell is blank: there is nothing to ask.

What is the same for all rows comes first, rendered once: the system message, then the examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt_texts import (
    ExampleError,
    Judge,
    PromptTexts,
    examples_in,
    pairs_json,
    texts_of,
)
from ondine_dagster.llm.static_text import static_text
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.llm.template_names import TemplateNames
from ondine_dagster.spec import Prompt
from ondine_dagster.spec.templates import environment, variables

# What a template can raise on odd data; anything else is our own bug and must be seen.
TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,  # of a text that was multiplied
    RecursionError,
    TypeError,
    ValueError,
)
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class RenderError:
    """Why a row has no prompt."""

    code: ErrorCode
    message: str


class PromptRenderer:
    """Renders the declared prompt for row after row.

    `columns` are the columns that it names, those of images and documents too; `needs_whole_row`
    tells that it also computes names that it looks up in `row`. `static_messages` is how many
    messages at the start are the same for all rows, `static_text` what their user messages have in
    common.
    """

    def __init__(
        self, prompt: Prompt, texts: PromptTexts | None = None, judge: Judge | None = None
    ) -> None:
        """`texts` are needed where the prompt names files; `judge` is asked about examples.

        Raises OndineError for examples that cannot be shown.
        """
        texts = texts or texts_of(prompt)
        sandbox = environment(texts.partials)
        system, template = texts.jinja
        used = TemplateNames(sandbox, texts.partials)
        of_template, of_system = used.of(template), used.of(system or "")
        self._texts = of_template.columns | of_system.columns
        self._column = prompt.examples_column
        self.columns = (
            self._texts
            | {one.column for one in prompt.attached}
            | ({self._column} if self._column else frozenset())
        )
        self.needs_whole_row = of_template.whole_row or of_system.whole_row
        self.partials = of_template.partials | of_system.partials
        self.system_columns = of_system.columns
        self.static_text = static_text(sandbox.parse(template))
        self._template = _compiled(sandbox, template)
        self._system = None if system is None else _compiled(sandbox, system)
        self._judge = judge
        self._pairs = self._shown(texts.examples)
        self._before: str | None = None
        self.static_messages = 0
        if not of_system.columns and not of_system.whole_row:
            self._before = self._fixed_first() + self._pairs
            self.static_messages = 2 * len(texts.examples) + (self._system is not None)

    @property
    def static_json(self) -> str:
        """Return the messages that are the same for all rows, as JSON without brackets."""
        return self._before or ""

    def render(
        self, row: Mapping[str, Any], attached: Sequence[Attachment] = ()
    ) -> str | RenderError:
        """Return the messages as canonical JSON, or why there are none."""
        if not attached and self._texts and all(_blank(row.get(name)) for name in self._texts):
            names = ", ".join(sorted(self._texts))
            return RenderError(
                ErrorCode.PROMPT_BLANK, f"every column of the prompt is blank: {names}"
            )
        try:
            user = self._template.render(variables(row))
            user.encode()  # half a character cannot be sent: a template may spell out "\ud83d"
            before = self._before
            if before is None:
                before = self._first(row) + self._pairs
            if self._column is not None:
                before += self._own_pairs(row.get(self._column))
        except TEMPLATE_ERRORS as error:
            return RenderError(ErrorCode.RENDER_FAILED, f"{type(error).__name__}: {error}")
        return f"[{before}{_user_json(user, attached)}]"

    def _first(self, row: Mapping[str, Any]) -> str:
        """Return the system message as JSON with a comma behind it, or nothing."""
        if self._system is None:
            return ""
        text = self._system.render(variables(row))
        text.encode()
        return _system_json(text)

    def _fixed_first(self) -> str:
        try:
            return self._first({})
        except TEMPLATE_ERRORS as error:
            raise OndineError(f"prompt.system cannot be rendered: {error}") from None

    def _message(self, row: Mapping[str, Any]) -> str:
        return self._template.render(variables(row))

    def _shown(self, examples: Sequence[Any]) -> str:
        try:
            return pairs_json(examples, self._message, self._judge)
        except TEMPLATE_ERRORS as error:
            raise OndineError(f"prompt.examples: {error}") from None

    def _own_pairs(self, cell: Any) -> str:
        try:
            return pairs_json(examples_in(cell), self._message, self._judge)
        except ExampleError as error:
            raise ExampleError(f"the column {self._column} {error}") from None


def _compiled(sandbox: ImmutableSandboxedEnvironment, text: str) -> Template:
    template = sandbox.from_string(text)
    # jinja copies the globals for each rendering, and copying its chain of mappings takes a third
    # of the whole time
    template.globals = dict(template.globals)
    return template


def messages_json(system: str | None, user: str, attached: Sequence[Attachment] = ()) -> str:
    """Return canonical JSON (sorted keys, no spaces) of the messages; spliced into requests."""
    first = _system_json(system) if system is not None else ""
    return f"[{first}{_user_json(user, attached)}]"


def _system_json(text: str) -> str:
    return f'{{"content":{_encode(text)},"role":"system"}},'


def _user_json(text: str, attached: Sequence[Attachment]) -> str:
    listed = compact_json([one.to_json() for one in attached]) if attached else ""
    files = f'"attachments":{listed},' if attached else ""
    return f'{{{files}"content":{_encode(text)},"role":"user"}}'


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
