"""Ondine's templates, which are Jinja or Python's `str.format`, as Jinja. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_IS_JINJA = re.compile(r"\{%|\{#|\{\{\s*[A-Za-z_]")
# what is printed or done for a row, apart from a brace
_OF_A_ROW = re.compile(r'\{%|\{\{(?! "\{" \}\})')
_NAME = r"[A-Za-z_]\w*"
_BRACES = re.compile(r"\{+|\}+")
# what turns a text, as the cells of a CSV file are, into what a format wants
_NUMBERS = {"d": " | int", **dict.fromkeys("eEfFgG%", " | float")}


def names_columns(jinja: str) -> bool:
    """Return whether a template that came from `as_jinja` says something of the row."""
    return _OF_A_ROW.search(jinja) is not None


def as_jinja(template: str, use_jinja: bool | None = None, columns: Iterable[str] = ()) -> str:
    """Return a template that renders to the same text.

    `use_jinja` is Ondine's `use_jinja2`: None, that it finds out by itself. `columns` are those
    that are known: their names may have white space and other characters in them.
    """
    if _IS_JINJA.search(template) if use_jinja is None else use_jinja:
        return template
    pieces, end = [], 0
    for match in _placeholder(columns).finditer(template):
        pieces += [template[end : match.start()], _expression(match[1], match[2])]
        end = match.end()
    pieces.append(template[end:])
    texts = pieces[::2]
    # braces are doubled on purpose where they never stand alone, else they mean themselves
    if all(len(run[0]) % 2 == 0 for text in texts for run in _BRACES.finditer(text)):
        pieces[::2] = [text.replace("{{", "{").replace("}}", "}") for text in texts]
    following = [*pieces[1:], ""]
    for place in range(0, len(pieces), 2):
        pieces[place] = _literal(pieces[place], following[place])
    return "".join(pieces)


def _placeholder(columns: Iterable[str]) -> re.Pattern[str]:
    """Return what finds {price}, {price:.2f}, {name!r}, {row[key]}, and {Unit Price} if a column.

    Not {{price}}, which Ondine reads as {price} in braces.
    """
    odd = [re.escape(one) for one in columns if not one.isidentifier() and "{" not in one]
    names = "|".join([*sorted(odd, key=len, reverse=True), _NAME])
    return re.compile(rf"(?<!\{{)\{{({names})((?:[.\[!:][^{{}}]*)?)\}}")


def _expression(name: str, how: str) -> str:
    if not name.isidentifier():
        name = f"row[{json.dumps(name, ensure_ascii=False)}]"
    if not how:
        return f"{{{{ {name} }}}}"
    number = _NUMBERS.get(how[-1], "") if how[0] == ":" else ""
    text = json.dumps(f"{{0{how}}}", ensure_ascii=False)
    value = f"{name}{number}" if number else name
    return f"{{{{ {text}.format({value}) }}}}"


def _literal(text: str, following: str) -> str:
    """Return the text so that Jinja sees no tag in it, nor where it meets what follows."""
    ahead = (text + following[:1])[1:] + " "
    return "".join(
        '{{ "{" }}' if char == "{" and after in "{%#" else char
        for char, after in zip(text, ahead, strict=False)
    )
