"""Counting the values of a column: bounded, merged over partitions, and back from a note."""

from __future__ import annotations

import pytest

from ondine_dagster.assets.verdicts.field_counts import FieldCounts, from_note, merged, to_note
from ondine_dagster.assets.verdicts.field_verdicts import Expected, _problems, expected_of
from ondine_dagster.llm.field_checks import Value
from ondine_dagster.spec import Dataset
from ondine_dagster_tests.spec.declarations import attributes


def counted(*values: Value) -> FieldCounts:
    counts = FieldCounts()
    counts.add(values)
    return counts


def test_null_and_blank_are_not_filled_and_labels_keep_their_type() -> None:
    counts = counted("a", None, "", "  ", "a", "b")
    assert (counts.rows, counts.filled, counts.filled_share) == (6, 3, 0.5)
    assert counts.top == ("a", 2 / 3)
    again = from_note(to_note({"x": counted(1, 2, 2), "y": counted(True, False), "z": counts}))
    assert again["x"].labels == {2: 2, 1: 1}
    assert (again["x"].low, again["x"].high) == (1, 2)
    assert set(again["y"].labels) == {True, False}
    assert again["y"].low is None
    assert again["z"] == counts
    assert from_note(None) == {}


def test_free_text_is_bounded_and_long_texts_stay_apart() -> None:
    counts = counted(*(f"{'x' * 500} {n}" for n in range(5000)))
    assert counts.filled == 5000
    assert counts.distinct == 1000
    assert len(to_note({"x": counts})) < 2000
    again = from_note(to_note({"x": counts}))["x"]
    assert len(again.labels) == 10
    assert max(map(len, map(str, again.labels))) <= 80


def test_partitions_are_added() -> None:
    total = merged([counted("a", "b"), counted("b", None), FieldCounts()])
    assert (total.rows, total.filled, total.distinct, total.top) == (4, 3, 2, ("b", 2 / 3))
    assert merged([]).filled_share == 1.0


EXPECTED = Expected("x", min_filled=0.9, allowed=None, minimum=None, maximum=None, max_same=0.98)


@pytest.mark.parametrize(
    ("expected", "values", "problem"),
    [
        ({}, ["a"] * 9 + [None], None),
        ({}, ["a"] * 8 + [None, " "], "filled in 80 % of the rows, expected at least 90 %"),
        ({"allowed": ("a",)}, ["a", "b", "b"], "not expected: 'b' (2)"),
        ({"allowed": ("a",)}, [str(n) for n in range(300)], "not expected: '0' (1), '1' (1)"),
        ({"minimum": 1, "maximum": 5}, [1, 5], None),
        ({"minimum": 1}, [0, 3], "has 0, expected 1 to any"),
        ({"maximum": 5}, [6.5], "has 6.5, expected any to 5"),
    ],
)
def test_what_is_wrong_with_values(
    expected: dict[str, object], values: list[Value], problem: str | None
) -> None:
    wanted = Expected(**{**_as_dict(EXPECTED), **expected})
    found = _problems(wanted, counted(*values))
    assert (found == []) == (problem is None)
    assert problem is None or problem in found[0]


def _as_dict(expected: Expected) -> dict[str, object]:
    return {name: getattr(expected, name) for name in Expected.__slots__}


def test_what_is_expected_comes_from_the_field_unless_its_checks_say_otherwise() -> None:
    fields = {
        "label": {"type": "string", "enum": ["a", "b"], "accept": ["a"], "required": False},
        "score": {"type": "integer", "minimum": 0, "maximum": 9, "column": "stars"},
    }
    dataset = Dataset.model_validate(attributes(output={"fields": fields}))
    assert expected_of(dataset, "label") == Expected("label", 0.01, ("a",), None, None, 0.98)
    assert expected_of(dataset, "stars") == Expected("stars", 0.9, None, 0, 9, 0.98)
    checks = {"fields": {"stars": {"minimum": 1, "min_filled": 0.5, "max_same": 0.2}}}
    dataset = Dataset.model_validate(attributes(output={"fields": fields}, checks=checks))
    assert expected_of(dataset, "stars") == Expected("stars", 0.5, None, 1, 9, 0.2)
