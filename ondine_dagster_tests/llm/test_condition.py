"""`when`: true, false or NULL and nothing else; what cannot be told is an error of the row."""

from __future__ import annotations

from typing import Any

import pytest

from ondine_dagster.llm.condition import RowCondition
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import RenderError
from ondine_dagster_tests.spec.declarations import changed, only_problem


def asked(expression: str, **row: Any) -> object:
    """Return whether the row is asked, or the message of its error."""
    found = RowCondition(expression).holds(row)
    if isinstance(found, RenderError):
        assert found.code is ErrorCode.CONDITION_FAILED
        return found.message
    return found


@pytest.mark.parametrize(
    ("expression", "row", "expected"),
    [
        ("stars < 3", {"stars": 2}, True),
        ("stars < 3", {"stars": 3}, False),
        ("stars | int < 3", {"stars": "2"}, True),
        ("text | trim != ''", {"text": " \n"}, False),
        ("flag", {"flag": True}, True),
        ("flag", {"flag": None}, False),
        ("not flag", {"flag": None}, True),
        ("text is none", {"text": None}, True),
        ("country in ['DE', 'AT'] and stars > 1", {"country": "AT", "stars": 5}, True),
        ("row['Review Text'] | length > 2", {"Review Text": "abc"}, True),
        ("(votes | from_json).x | length > 1", {"votes": '{"x": [["a", 2], ["b", 1]]}'}, True),
    ],
)
def test_an_expression_says_which_rows_are_asked(
    expression: str, row: dict[str, Any], expected: bool
) -> None:
    assert asked(expression, **row) is expected


@pytest.mark.parametrize(
    ("expression", "row", "said"),
    [
        ("flag", {"flag": "no"}, "it is 'no', and must be true or false"),
        ("stars", {"stars": 1}, "it is '1', and must be true or false"),
        ("stars < 3", {"stars": "2"}, "TypeError"),
        ("stars < 3", {"stars": None}, "TypeError"),
        ("row['gone'] == 1", {"stars": 1}, "no attribute 'gone'"),
        ("row['gone']", {"stars": 1}, "no attribute 'gone'"),
        ("text.__class__ == 1", {"text": "a"}, "unsafe"),
        ("1 / stars > 1", {"stars": 0}, "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_told_is_an_error_of_the_row(
    expression: str, row: dict[str, Any], said: str
) -> None:
    """The text "no" counts as true in Jinja: it would cost money."""
    assert said in str(asked(expression, **row))


def test_the_columns_of_an_expression_are_known() -> None:
    condition = RowCondition("a > 1 and row['b c'] and c is defined and range(2)")
    assert condition.columns == {"a", "c"}
    assert condition.needs_whole_row
    assert not RowCondition("a > 1").needs_whole_row


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("{{ stars < 3 }}", "write the expression without braces"),
        ("stars <", "no valid Jinja expression"),
        ("stars < 3 }} {{ 1", "without braces"),
        ("stars 3", "too much after the expression"),
        ("stars | nosuchfilter", "No filter named 'nosuchfilter'"),
        (" ", "text that is not empty"),
        ("[1, 2] | random == stars", "No filter named 'random'"),
    ],
)
def test_a_wrong_expression_is_refused_when_it_is_declared(expression: str, said: str) -> None:
    problem = only_problem(changed("when", expression))
    assert problem.path == "when"
    assert said in problem.message
