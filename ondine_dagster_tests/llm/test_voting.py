"""Several answers to one question: who wins, what agreement means, when there is no majority."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.voting import Vote, vote
from ondine_dagster_tests.spec.declarations import attributes, changed, only_problem

BAD = Rejection(ErrorCode.FIELD_MISSING, "field `label` is missing or null")
LATER = Rejection(ErrorCode.ANSWER_NOT_JSON, "the answer is no JSON")


def label(value: Any, note: str = "") -> dict[str, Any]:
    return {"label": value, "note": note}


def test_the_value_of_most_answers_wins() -> None:
    found = vote([label("a", "1"), label("b", "2"), label("b", "3")], {"label"})
    assert isinstance(found, Vote)
    assert found.values == label("b", "2")
    assert found.agreement == pytest.approx(2 / 3)
    assert json.loads(found.votes or "") == {"label": [["b", 2], ["a", 1]]}


def test_a_tie_is_decided_by_who_came_first() -> None:
    found = vote([label("a"), label("b")], {"label"})
    assert isinstance(found, Vote)
    assert (found.values["label"], found.agreement) == ("a", 0.5)


def test_agreement_is_that_of_the_column_that_agrees_least() -> None:
    answers = [{"x": True, "y": n} for n in (1, 1, 2, 3)]
    found = vote(answers, {"x", "y"})
    assert isinstance(found, Vote)
    assert found.values == {"x": True, "y": 1}
    assert found.agreement == 0.5


def test_free_text_is_taken_from_one_answer_whole() -> None:
    answers = [
        {"x": "a", "y": "q", "note": "neither"},
        {"x": "b", "y": "p", "note": "one"},
        {"x": "b", "y": "r", "note": "both?"},
        {"x": "a", "y": "p", "note": "most"},
        {"x": "b", "y": "p", "note": "winner"},
    ]
    found = vote(answers, {"x", "y"})
    assert isinstance(found, Vote)
    assert found.values == {"x": "b", "y": "p", "note": "one"}


def test_answers_of_no_use_count_against_the_winner() -> None:
    found = vote([BAD, label("a"), label("a")], {"label"})
    assert isinstance(found, Vote)
    assert found.agreement == pytest.approx(2 / 3)
    assert vote([label("a"), LATER, BAD], {"label"}) is LATER
    assert vote([label("a"), BAD], {"label"}) is BAD


def test_null_is_a_vote_and_white_space_is_none() -> None:
    found = vote([label(None), label(None), label("a")], {"label"})
    assert isinstance(found, Vote)
    assert found.values["label"] is None
    found = vote([label(" a"), label("a\n"), label("b")], {"label"})
    assert isinstance(found, Vote)
    assert (found.values["label"], found.agreement) == (" a", pytest.approx(2 / 3))


def test_without_a_column_to_vote_on_there_is_no_agreement() -> None:
    found = vote([label("a", "1"), label("b", "2")], ())
    assert found == Vote(label("a", "1"), None, None)


VALUES = st.sampled_from([None, True, False, 0, 1, 2.5, "", "a", " a", "b", [], [1]])
ANSWERS = st.one_of(st.just(BAD), st.fixed_dictionaries({"a": VALUES, "b": VALUES}))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ANSWERS, min_size=1, max_size=9))
def test_a_vote_brings_values_that_were_answered_or_a_reason(answers: list[Any]) -> None:
    found = vote(answers, {"a"})
    good = [one for one in answers if one is not BAD]
    if 2 * len(good) <= len(answers):
        assert found is BAD
    else:
        assert isinstance(found, Vote)
        assert found.values["a"] in [one["a"] for one in good]
        assert found.values["b"] in [one["b"] for one in good]
        assert found.agreement is not None
        assert 0 < found.agreement <= 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"samples": 0}, "greater than or equal to 1"),
        ({"samples": 10}, "less than or equal to 9"),
        ({"samples": 2, "output": {"fields": {"note": {"type": "string"}}}}, "no field can be"),
    ],
)
def test_samples_of_which_nothing_can_be_made_are_refused(more: dict[str, Any], said: str) -> None:
    problem = only_problem(attributes(**more))
    assert problem.path == "samples"
    assert said in problem.message or "must be" in problem.message


def test_samples_that_a_cache_would_answer_are_refused() -> None:
    llm = {
        "provider": "openrouter",
        "name": "openai/gpt-4o-mini",
        "openrouter": {"response_cache_seconds": 60},
    }
    assert "the same answer each time" in only_problem(attributes(llm=llm, samples=3)).message
    assert changed("samples", 3)["samples"] == 3
