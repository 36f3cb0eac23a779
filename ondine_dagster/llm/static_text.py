"""What a template renders to for every row alike: its text before the first expression, after the
last one, and between plain columns. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from jinja2 import nodes

from ondine_dagster.llm.template_names import column_of


@dataclass(frozen=True, slots=True)
class StaticText:
    """The text that the user messages of all rows begin and end with.

    Where each message is nothing but that text and plain columns, two at least and none of them
    twice, `columns` are their names in order, and `between` is the text from one to the next.
    """

    head: str = ""
    tail: str = ""
    columns: tuple[str, ...] = ()
    between: tuple[str, ...] = ()

    @property
    def empty(self) -> str:
        """Return the message of a row whose cells are all empty."""
        return self.head + "".join(self.between) + self.tail

    def cells(self, text: str) -> list[str] | None:
        """Return the cells of the columns in a message; None where more than one reading fits it.

        A cell may hold the text that stands between columns: nobody could tell where it ends.
        """
        end = len(text) - len(self.tail)
        own = text[len(self.head) : end]
        if not self.columns or f"{self.head}{own}{self.tail}" != text:
            return None
        cells, rest = [], own
        for between in self.between:
            cell, found, rest = rest.partition(between)
            if not found:
                return None
            cells.append(cell)
        cells.append(rest)
        rest, backwards = own, []
        for between in reversed(self.between):
            rest, _, cell = rest.rpartition(between)
            backwards.append(cell)
        backwards.append(rest)
        return cells if cells == backwards[::-1] else None


def static_text(template: nodes.Template) -> StaticText:
    """Return what every text of a parsed template has in common.

    Where nothing depends on the row, that is nothing: such a text is one question, not many.
    """
    parts: list[nodes.Node] = []
    for node in template.body:
        parts += node.nodes if isinstance(node, nodes.Output) else [node]
    texts = [_text(part) for part in parts]
    varying = [at for at, text in enumerate(texts) if text is None]
    if not varying:
        return StaticText()
    first, last = varying[0], varying[-1]
    head, tail = _joined(texts[:first]), _joined(texts[last + 1 :])
    columns = [column_of(parts[at]) for at in varying]
    named = tuple(name for name in columns if name is not None)
    between = tuple(_joined(texts[one + 1 : other]) for one, other in pairwise(varying))
    apart = len(named) > 1 and len(set(named)) == len(columns) and all(between)
    return StaticText(head, tail, named, between) if apart else StaticText(head, tail)


def _text(part: nodes.Node) -> str | None:
    """Return the text that a part of a template always is; None where it depends on the row."""
    if isinstance(part, nodes.TemplateData):
        return part.data
    return part.value if isinstance(part, nodes.Const) and isinstance(part.value, str) else None


def _joined(texts: list[str | None]) -> str:
    return "".join(text or "" for text in texts)
