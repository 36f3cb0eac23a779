"""Templates of prompts: the sandbox in which they run, and the two styles of naming a column.

Jinja has `{{ column }}`; plain has `{column}` and turns into Jinja before anything else is done
with it, so that there is one way to render. A text is never read in both styles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

from jinja2 import DictLoader, StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ondine_dagster.spec.template_filters import FILTERS, NOT_REPEATABLE

Style = Literal["jinja", "plain"]
# The row as a mapping, for columns whose name is no identifier: {{ row["Review Text"] }}.
ROW = "row"
# The same for plain text, where a column may be called `row` too.
_PLAIN_ROW = "_row_of_plain_text"
ROWS = frozenset({ROW, _PLAIN_ROW})
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_STARTS_TAG = re.compile(r"\{[{%#]")
# what is taken for a column where no style is declared
_COLUMN = re.compile(r"\{([^\W\d]\w*(?:[ .-]\w+)*)\}")
_PLAIN = re.compile(r"\{\{|\}\}|\{[^{}\"':\n]+\}|[{}]")
_EXACT_IN_FLOAT = 2**53
_NOT_INCLUDING = (nodes.Extends, nodes.Import, nodes.FromImport)


def environment(partials: Mapping[str, str] | None = None) -> ImmutableSandboxedEnvironment:
    """Return the sandbox for prompts; `partials` are the texts that a template may include.

    An unknown name is an error, NULL renders as nothing, and a final line break is kept.
    """
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=_null_is_nothing,
        keep_trailing_newline=True,
        loader=DictLoader(partials or {}),
    )
    made.filters.update(FILTERS)
    for name in NOT_REPEATABLE:
        made.filters.pop(name, None)
        made.globals.pop(name, None)
    return made


def variables(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that a template has for a row."""
    values = {name: as_shown(value) for name, value in row.items()}
    return {_PLAIN_ROW: values, ROW: values, **values}


def as_shown(value: Any) -> Any:
    """Return a value as prompts have it: a fraction that is whole is a whole number.

    One 12.5 in a column of a JSON or Excel file, or a gap in one of pandas, makes fractions of all
    its numbers, and no prompt may change with that.
    """
    if type(value) is float and value.is_integer() and abs(value) < _EXACT_IN_FLOAT:
        return int(value)
    return value


def style_of(texts: Iterable[str], declared: Style | None = None) -> Style:
    """Return the style in which all of these texts are written.

    Raises:
        ValueError: nothing is declared, and they have both.
    """
    if declared is not None:
        return declared
    whole = list(texts)
    plain = next((found for text in whole if (found := _COLUMN.search(_TAG.sub("", text)))), None)
    tag = next((found for text in whole if (found := _STARTS_TAG.search(text))), None)
    if plain is not None and tag is not None:
        raise ValueError(
            f"has {plain[0]} beside Jinja's {tag[0]}: a prompt has one style. Write "
            f"{{{{ {plain[1]} }}}}, or say `style: jinja` where {plain[0]} is meant as text, or "
            "`style: plain`, in which {column} is a column and {{ is a brace"
        )
    return "plain" if plain is not None else "jinja"


def as_jinja(text: str, style: Style) -> str:
    """Return a text as Jinja reads it.

    Raises:
        ValueError: the style is plain, and a brace is neither doubled nor round a column's name.
    """
    return _PLAIN.sub(lambda found: _in_jinja(text, found), text) if style == "plain" else text


def _in_jinja(text: str, found: re.Match[str]) -> str:
    match found[0]:
        case "{{":
            return '{{ "{" }}'
        case "}}":
            return "}"
        case "{" | "}":
            line = text.count("\n", 0, found.start()) + 1
            raise ValueError(
                f"has a {found[0]} in line {line} that is not round a column's name: in "
                "`style: plain` a brace that is text is written twice, {{ and }}"
            )
        case column:
            name = column[1:-1].replace("\\", "\\\\")
            return f'{{{{ {_PLAIN_ROW}["{name}"] }}}}'


def check(text: str, style: Style, partials: Collection[str] = ()) -> str:
    """Return `text` if it is a template that can be rendered; nothing is rendered here.

    Raises:
        ValueError: it cannot be compiled, or loads what is not among `partials`.
    """
    sandbox = environment()
    source = as_jinja(text, style)
    try:
        tree = sandbox.parse(source)
        sandbox.compile(source, raw=True)
    except TemplateSyntaxError as error:
        what = str(error.message).rstrip(".")
        raise ValueError(
            f"is no valid Jinja template: {what}, in line {error.lineno} of the template"
        ) from None
    loading = next(iter(tree.find_all(_NOT_INCLUDING)), None)
    if loading is not None:
        raise ValueError(
            f"loads another template in line {loading.lineno}; a template can only include a "
            'partial: {% include "name" %}'
        )
    for name in included(tree, _no_name):
        if name not in partials:
            there = f": there are {', '.join(partials)}" if partials else ", and there are none"
            raise ValueError(f"includes {name!r}, which is not in prompt.partials{there}")
    return text


def included(
    tree: nodes.Template, otherwise: Callable[[nodes.Include], str] | None = None
) -> list[str]:
    """Return the names of the partials that a template includes.

    `otherwise` says what a name is that is computed; without it such are left out.
    """
    names = []
    for one in tree.find_all(nodes.Include):
        if isinstance(one.template, nodes.Const) and isinstance(one.template.value, str):
            names.append(one.template.value)
        elif otherwise is not None:
            names.append(otherwise(one))
    return names


def _no_name(include: nodes.Include) -> str:
    raise ValueError(
        f"includes what is computed in line {include.lineno}; the name of a partial must stand "
        'there as text: {% include "name" %}'
    )


def _null_is_nothing(value: Any) -> Any:
    return "" if value is None else value
