"""What each question of a pack bears of what the request used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.engine.shares import shares, usage_shares
from ondine_dagster.llm.provider import Usage


@pytest.mark.parametrize(
    ("total", "weights", "found"),
    [
        (100, [1, 1, 2], [25, 25, 50]),
        # 14.28..., 28.57..., 57.14...: the largest remainder gets the one that is left
        (100, [1, 2, 4], [14, 29, 57]),
        (2, [1, 1, 1], [1, 1, 0]),
        (0, [3, 4], [0, 0]),
        (7, [5], [7]),
    ],
)
def test_a_question_bears_its_part_and_the_largest_remainders_what_is_left(
    total: int, weights: list[int], found: list[int]
) -> None:
    assert shares(total, weights) == found


@given(st.integers(0, 10**15), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_add_up_and_none_is_a_whole_unit_off(total: int, weights: list[int]) -> None:
    found = shares(total, weights)
    assert sum(found) == total
    whole = sum(weights)
    assert all(
        abs(part * whole - total * weight) < whole
        for part, weight in zip(found, weights, strict=True)
    )


def test_tokens_are_shared_alike_and_what_is_unknown_stays_unknown() -> None:
    first, second = usage_shares(Usage(prompt_tokens=10, completion_tokens=None), [1, 4])
    assert (first.prompt_tokens, second.prompt_tokens) == (2, 8)
    assert first.completion_tokens is second.completion_tokens is None
