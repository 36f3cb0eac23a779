"""What templates take from a row, found without rendering them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.templates import ROWS, included

# row.items is no column but what a mapping can do
_METHODS = frozenset(dir(dict))


@dataclass(frozen=True, slots=True)
class Used:
    """What a template takes: columns by their names, perhaps others, and partials."""

    columns: frozenset[str]
    whole_row: bool
    partials: frozenset[str]


class TemplateNames:
    """Finds what templates take from a row, in the partials that they include too."""

    def __init__(self, sandbox: ImmutableSandboxedEnvironment, partials: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._partials = partials

    def of(self, text: str, seen: frozenset[str] = frozenset()) -> Used:
        """Return what this template takes; raises OndineError for partials that go in circles."""
        tree = self._sandbox.parse(text)
        names = meta.find_undeclared_variables(tree) - self._sandbox.globals.keys()
        looked_up = _looked_up(tree) if names & ROWS else set()
        columns = (names - ROWS) | (looked_up or set())
        whole, used = looked_up is None, set(included(tree))
        for name in sorted(used):
            if name in seen:
                raise OndineError(f"prompt.partials: {name} includes itself")
            inner = self.of(self._partials[name], seen | {name})
            columns |= inner.columns - _set_in(tree)
            whole |= inner.whole_row
            used |= inner.partials
        return Used(frozenset(columns), whole, frozenset(used))


def column_of(node: nodes.Node) -> str | None:
    """Return the column that a bare `{{ column }}` or `{{ row["column"] }}` is; None for others."""
    if isinstance(node, nodes.Name) and node.name not in ROWS:
        return node.name
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return str(node.arg.value) if _of_row(node.node, node.arg.value) else None
    return node.attr if isinstance(node, nodes.Getattr) and _of_row(node.node, node.attr) else None


def _set_in(tree: nodes.Template) -> set[str]:
    """Return the names that a template gives values to; partials that it includes see them."""
    return {one.name for one in tree.find_all(nodes.Name) if one.ctx == "store"}


def _looked_up(tree: nodes.Template) -> set[str] | None:
    """Return the columns that are named as in row["Review Text"]; None where `row` is used else."""
    named = [
        *(
            one.arg.value
            for one in tree.find_all(nodes.Getitem)
            if isinstance(one.arg, nodes.Const) and _of_row(one.node, one.arg.value)
        ),
        *(one.attr for one in tree.find_all(nodes.Getattr) if _of_row(one.node, one.attr)),
    ]
    uses = sum(one.name in ROWS and one.ctx == "load" for one in tree.find_all(nodes.Name))
    return set(named) if uses == len(named) else None


def _of_row(node: nodes.Node, name: object) -> bool:
    """Return whether `name` is looked up in `row`, and may be a column."""
    of_row = isinstance(node, nodes.Name) and node.name in ROWS
    return of_row and isinstance(name, str) and name not in _METHODS
