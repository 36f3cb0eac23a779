"""`when`: an expression over the columns of a row that says whether the row is asked at all."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator

from ondine_dagster.spec.base import FilledText
from ondine_dagster.spec.problems import shown
from ondine_dagster.spec.templates import environment


@cache
def expression_environment() -> ImmutableSandboxedEnvironment:
    """Return the sandbox in which expressions are compiled: that of prompts."""
    return environment()


def parsed_expression(expression: str) -> nodes.Template:
    """Return the tree of an expression; raises TemplateSyntaxError."""
    parser = Parser(expression_environment(), expression, state="variable")
    found = parser.parse_expression()
    if not parser.stream.eos:
        rest = parser.stream.current.value
        raise TemplateSyntaxError(f"{rest!r} is too much after the expression", 1)
    tree = nodes.Template([nodes.Output([found], lineno=1)], lineno=1)
    tree.set_environment(expression_environment())
    return tree


def _is_expression(text: str) -> str:
    if "{{" in text or "{%" in text:
        raise ValueError(
            f"is {shown(text)}; write the expression without braces, such as `stars < 3`"
        )
    try:
        parsed_expression(text)
        # what parses may still name a filter or a test that Jinja does not have
        expression_environment().compile_expression(text)
    except TemplateSyntaxError as error:
        what = str(error.message).rstrip(".")
        raise ValueError(f"is {shown(text)}, no valid Jinja expression: {what}") from None
    return text


Condition = Annotated[FilledText, AfterValidator(_is_expression)]
