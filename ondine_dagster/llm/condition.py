"""Whether a row is asked: the declared `when`, evaluated on the row's own values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import meta

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import TEMPLATE_ERRORS, RenderError
from ondine_dagster.llm.rejection import shown
from ondine_dagster.spec.condition import expression_environment, parsed_expression
from ondine_dagster.spec.templates import ROW


class RowCondition:
    """The declared expression.

    `columns` are those that it names directly; `needs_whole_row` tells that it looks others up in
    `row`.
    """

    def __init__(self, expression: str) -> None:
        environment = expression_environment()
        names = meta.find_undeclared_variables(parsed_expression(expression))
        names -= environment.globals.keys()
        self.columns = frozenset(names - {ROW})
        self.needs_whole_row = ROW in names
        self._holds = environment.compile_expression(expression, undefined_to_none=False)

    def holds(self, row: Mapping[str, Any]) -> bool | RenderError:
        """Return whether the row is asked, or why that cannot be told.

        NULL is not true. Anything else than true and false is refused: the text "no" would count
        as true, and cost money.
        """
        try:
            found = self._holds({ROW: row, **row})
            if found is None or isinstance(found, bool):
                return bool(found)
            problem = f"it is {shown(str(found))}, and must be true or false"
        except TEMPLATE_ERRORS as error:
            problem = f"{type(error).__name__}: {error}"
        return RenderError(ErrorCode.CONDITION_FAILED, f"`when` cannot be told: {problem}")
