"""Renders a row into messages: Jinja in an immutable sandbox, pure.

A cell's text is a value and never a template. NULL renders as nothing, an unknown name is an
error of the row, and so is a prompt whose every referenced cell is blank: there is nothing to ask.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.static_text import static_ends
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Prompt

# The row as a mapping, for columns whose name is no identifier: {{ row["Review Text"] }}.
ROW = "row"
# What a template can raise on odd data; anything else is our own bug and must be seen.
TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
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

    `columns` are the columns that it names directly, those of images and documents too;
    `needs_whole_row` tells that it also looks columns up in `row`. `ends` is the text with which
    the user messages of all rows begin and end.
    """

    def __init__(self, prompt: Prompt) -> None:
        environment = _environment()
        names = _names(prompt)
        self._texts = names - {ROW}
        self.columns = self._texts | {one.column for one in prompt.attached}
        self.needs_whole_row = ROW in names
        self.ends = static_ends(environment.parse(prompt.template))
        self._template = _compiled(environment, prompt.template)
        self._system = _compiled(environment, prompt.system) if prompt.system else None

    def render(
        self, row: Mapping[str, Any], attached: Sequence[Attachment] = ()
    ) -> str | RenderError:
        """Return the messages as canonical JSON, or why there are none."""
        if not attached and self._texts and all(_blank(row.get(name)) for name in self._texts):
            names = ", ".join(sorted(self._texts))
            return RenderError(
                ErrorCode.PROMPT_BLANK, f"every column of the prompt is blank: {names}"
            )
        values = {ROW: row, **row}
        try:
            user = self._template.render(values)
            system = self._system.render(values) if self._system else None
            _refuse_half_characters(user, system or "")
        except TEMPLATE_ERRORS as error:
            return RenderError(ErrorCode.RENDER_FAILED, f"{type(error).__name__}: {error}")
        return messages_json(system, user, attached)


def _compiled(environment: ImmutableSandboxedEnvironment, text: str) -> Template:
    template = environment.from_string(text)
    # jinja copies the globals for each rendering, and copying its chain of mappings takes a third
    # of the whole time
    template.globals = dict(template.globals)
    return template


def messages_json(system: str | None, user: str, attached: Sequence[Attachment] = ()) -> str:
    """Return canonical JSON (sorted keys, no spaces) of the messages; spliced into requests."""
    first = f'{{"content":{_encode(system)},"role":"system"}},' if system is not None else ""
    listed = compact_json([one.to_json() for one in attached]) if attached else ""
    files = f'"attachments":{listed},' if attached else ""
    return f'[{first}{{{files}"content":{_encode(user)},"role":"user"}}]'


def _refuse_half_characters(*texts: str) -> None:
    """Raise ValueError for text that cannot be sent: a template may spell out "\\ud83d"."""
    for text in texts:
        text.encode()


def _names(prompt: Prompt) -> frozenset[str]:
    """Return the names that the prompt takes from its row."""
    environment = _environment()
    names: set[str] = set()
    for template in filter(None, (prompt.system, prompt.template)):
        names |= meta.find_undeclared_variables(environment.parse(template))
    return frozenset(names - environment.globals.keys())


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_null_is_nothing, keep_trailing_newline=True
    )


def _null_is_nothing(value: Any) -> Any:
    return "" if value is None else value


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
