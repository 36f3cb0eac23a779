"""Budgets of a dataset in its declaration, and over all datasets in the environment."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.settings import demo_environment, load_settings
from ondine_dagster.spec import Budget, Limits
from ondine_dagster.spec.budgets import shared_budgets
from ondine_dagster_tests.spec.declarations import changed, only_problem

PER_DAY, LISTED = "ONDINE_BUDGET_USD_PER_DAY", "ONDINE_BUDGETS"


def environment(**variables: str) -> tuple[Budget, ...]:
    return shared_budgets(load_settings(Path.cwd(), variables))


def refusal(**variables: str) -> str:
    with pytest.raises(OndineError) as refused:
        environment(**variables)
    return str(refused.value)


def test_budget_usd_is_a_budget_for_ever() -> None:
    limits = Limits(budget_usd=Decimal(5), budgets=(Budget(requests=9, per="run"),))
    assert [(one.unit, one.per, one.amount) for one in limits.all_budgets()] == [
        ("usd", "total", Decimal(5)),
        ("requests", "run", 9),
    ]
    assert Limits().all_budgets() == ()


def test_a_budget_may_be_nothing_at_all() -> None:
    (budget,) = Limits(budget_usd=Decimal(0)).all_budgets()
    assert budget.amount == 0


def test_money_is_exact() -> None:
    (budget,) = environment(**{LISTED: '[{"usd": 0.1, "per": "day"}]'})
    assert budget.amount == Decimal("0.1")


@pytest.mark.parametrize(
    ("limits", "place", "other"),
    [
        ({"budgets": [{"usd": 1, "per": "day"}, {"usd": 2, "per": "day"}]}, 1, "budgets[0]"),
        ({"budget_usd": 1, "budgets": [{"usd": 1, "per": "total"}]}, 0, "budget_usd"),
    ],
)
def test_two_budgets_of_the_same_are_refused(
    limits: dict[str, object], place: int, other: str
) -> None:
    problem = only_problem(changed("limits", limits))
    assert problem.path == f"limits.budgets[{place}]"
    assert f"and so does `limits.{other}`; remove one of them" in problem.message


def test_the_environment_declares_budgets_over_all_datasets() -> None:
    listed = '[{"usd": "2.5", "per": "month"}, {"tokens": 1000, "per": "run"}]'
    assert environment(**{PER_DAY: "5", LISTED: listed}) == (
        Budget(usd=Decimal(5), per="day"),
        Budget(usd=Decimal("2.5"), per="month"),
        Budget(tokens=1000, per="run"),
    )
    assert environment() == environment(**{PER_DAY: "", LISTED: ""}) == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (PER_DAY, "five", "`ONDINE_BUDGET_USD_PER_DAY` is 'five'; it must be an amount in USD"),
        (PER_DAY, "-5", "it must be an amount in USD, 0 to 1000000"),
        (PER_DAY, "nan", "it must be an amount in USD"),
        (LISTED, "usd: 5", "ONDINE_BUDGETS is no valid JSON"),
        (LISTED, "usd: 5", '[{"usd": 5, "per": "day"}]'),
        (LISTED, '{"usd": 5, "per": "day"}', "`ONDINE_BUDGETS` is {"),
        (LISTED, '[{"usd": -5, "per": "day"}]', "`ONDINE_BUDGETS[0].usd` is -5; it must be"),
        (LISTED, '[{"usd": NaN, "per": "day"}]', "`ONDINE_BUDGETS[0].usd` is nan; it must be"),
        (LISTED, '[{"usd": 5, "window": "day"}]', "unknown key `window` in ONDINE_BUDGETS[0]"),
        (LISTED, '[{"usd": 5, "window": "day"}]', "did you mean `per`?"),
        (LISTED, '[{"tokens": 1.5, "per": "day"}]', "tokens` is 1.5; it must be a whole number"),
        (LISTED, '[{"per": "day"}]', "`ONDINE_BUDGETS[0]` has no amount"),
    ],
)
def test_a_wrong_variable_is_refused_by_name_with_what_would_be_right(
    name: str, value: str, message: str
) -> None:
    assert message in refusal(**{name: value})


def test_two_budgets_of_the_same_in_the_environment_are_refused() -> None:
    listed = '[{"tokens": 1, "per": "day"}, {"usd": 2, "per": "day"}]'
    assert refusal(**{PER_DAY: "5", LISTED: listed}) == (
        "`ONDINE_BUDGETS[1]` limits usd per day, and so does `ONDINE_BUDGET_USD_PER_DAY`; remove "
        "one of them."
    )


def test_the_demo_spends_no_real_money_and_so_has_none_of_the_budgets() -> None:
    assert demo_environment({PER_DAY: "0", LISTED: "[]", "HOME": "/"}) == {"HOME": "/"}
