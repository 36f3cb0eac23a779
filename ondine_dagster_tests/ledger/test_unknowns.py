"""T4: requests of unknown outcome, listed and resolved by a person."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.totals import Spent, Unsettled, spent, unsettled
from ondine_dagster.ledger.unknowns import UnknownAttempt, resolve, unknown_attempts
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    answered,
    ask_and_answer,
    counter,
    go,
    hits,
    key,
    request,
    state,
    unknown,
    value,
)


def lose(ledger: Ledger, name: str, **context: object) -> str:
    item = go(ledger, request(name, **context))  # type: ignore[arg-type]
    ledger.settle(unknown(item))
    return item.attempt.hex()


def listed(ledger: Ledger, dataset: str | None = None) -> list[UnknownAttempt]:
    with ledger.database.read() as connection:
        return unknown_attempts(connection, dataset)


def test_unknown_requests_are_listed_oldest_first_with_what_they_may_have_cost(
    ledger: Ledger,
) -> None:
    first, second = lose(ledger, "a", row_key="r9"), lose(ledger, "b", dataset="others")
    ask_and_answer(ledger, "c")
    go(ledger, request("open"))
    assert [one.id for one in listed(ledger)] == [first, second]
    assert [one.id for one in listed(ledger, "others")] == [second]
    (found,) = listed(ledger, "reviews")
    assert (found.row_keys, found.partition) == (("r9",), "rows-00000")
    assert found.reserved_usd == Decimal(WORST) / 10**12


def test_free_gives_the_money_back_and_the_question_may_be_asked_again(ledger: Ledger) -> None:
    one = lose(ledger, "q")
    assert ledger.reserve(request("q", max_unknown=0)).held
    assert [found.id for found in resolve(ledger.database, [one], "free")] == [one]
    assert counter(ledger.database) == (0, 0)
    go(ledger, request("q", max_unknown=0))


def test_charged_settles_at_the_worst_case_and_the_question_may_be_asked_again(
    ledger: Ledger,
) -> None:
    one = lose(ledger, "q")
    resolve(ledger.database, [one], "charged")
    assert counter(ledger.database) == (WORST, 0)
    assert value(ledger.database, "SELECT cost_source FROM attempts") == "estimated"
    go(ledger, request("q", max_unknown=0))


def test_only_what_is_unknown_can_be_resolved_and_all_or_nothing(ledger: Ledger) -> None:
    one = lose(ledger, "q")
    settled = ask_and_answer(ledger, "settled").attempt.hex()
    for strange in (settled, "no hex", ""):
        with pytest.raises(OndineError, match="ledger unknown"):
            resolve(ledger.database, [one, strange], "free")
    assert len(listed(ledger)) == 1
    resolve(ledger.database, [one, one], "free")
    with pytest.raises(OndineError):
        resolve(ledger.database, [one], "free")


def test_an_answer_that_comes_after_free_is_paid_and_kept(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    ledger.settle(unknown(item))
    resolve(ledger.database, [item.attempt.hex()], "free")
    ledger.settle(answered(item))
    assert state(ledger, item) == "settled"
    assert counter(ledger.database) == (COST, 0)
    assert hits(ledger.reserve(request("q"))) == {key("q"): "yes"}


def test_totals_say_what_is_spent_and_what_is_not_settled(ledger: Ledger) -> None:
    ask_and_answer(ledger, "a")
    ledger.settle(answered(go(ledger, request("b", run_scope="run-2"))))
    lose(ledger, "c")
    go(ledger, request("d"))
    with ledger.database.read() as connection:
        assert spent(connection, "reviews") == Spent(2 * COST, 2 * WORST, 4, 10)
        assert spent(connection, "reviews", "run:run-2") == Spent(COST, 0, 1, 5)
        assert spent(connection, "nothing") == Spent()
        assert unsettled(connection, "reviews") == Unsettled(1, WORST, 1, WORST)
        assert unsettled(connection, "nothing") == Unsettled()
