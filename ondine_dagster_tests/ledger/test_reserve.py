"""T1: who may send, and what is recorded of it."""

from __future__ import annotations

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Decision
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    WORST_TOKENS,
    answered,
    ask_and_answer,
    counter,
    execute,
    go,
    hits,
    key,
    released,
    request,
    rows,
    unknown,
    value,
)


def test_a_new_question_goes_and_counts_at_its_worst_case(ledger: Ledger) -> None:
    item = go(ledger, request("q", row_key="r7"))
    found = rows(ledger.database, "SELECT attempt, pos, answer_key, row_key, take, open FROM asks")
    assert found == [(item.attempt, 0, key("q"), "r7", 1, 1)]
    for window in ("run:run-1", "total"):
        assert counter(ledger.database, "usd", window) == (0, WORST)
        assert counter(ledger.database, "requests", window) == (0, 1)
        assert counter(ledger.database, "tokens", window) == (0, WORST_TOKENS)


def test_counters_exist_for_every_scope_and_window_from_the_first_request(ledger: Ledger) -> None:
    go(ledger, request("q"))
    day: str = value(ledger.database, "SELECT day FROM attempts")
    found = rows(ledger.database, """SELECT DISTINCT scope, "window" FROM spend""")
    windows = ("run:run-1", f"day:{day}", f"month:{day[:7]}", "total")
    assert set(found) == {
        (scope, window) for scope in ("dataset:reviews", "all") for window in windows
    }


def test_an_attempt_records_everything_about_its_request(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    context = item.context
    found = rows(
        ledger.database,
        "SELECT kind, state, dataset, run_scope, partition, provider, identity, base_url, "
        "ceiling, request_bytes, reserved, reserved_tokens, price_version, model_requested, "
        "length(process), t_open > 0, t_end FROM attempts",
    )
    assert found == [
        (
            "first",
            "open",
            context.dataset,
            context.run_scope,
            "rows-00000",
            context.provider,
            context.identity,
            context.base_url,
            context.ceiling,
            10,
            WORST,
            WORST_TOKENS,
            context.price_version,
            context.model,
            16,
            1,
            None,
        )
    ]


def test_a_question_that_is_being_asked_is_taken(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    assert ledger.reserve(request("q")) == Decision(taken=[key("q")])
    ledger.settle(released(item))
    go(ledger, request("q"))


def test_an_answered_question_is_a_hit_and_costs_nothing(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q")
    decision = ledger.reserve(request("q", base_url="https://elsewhere", dataset="another"))
    assert hits(decision) == {key("q"): "yes"}
    assert decision.go == decision.taken == []
    assert counter(ledger.database) == (COST, 0)


def test_one_question_twice_in_one_group_goes_once(ledger: Ledger) -> None:
    found = wait_for(ledger.submit, [request("q"), request("q"), request("other")])
    assert [decision and decision.go for decision in found] == [[key("q")], [], [key("other")]]
    assert found[1] == Decision(taken=[key("q")])


def test_of_several_questions_only_the_free_ones_are_asked(ledger: Ledger) -> None:
    ask_and_answer(ledger, "answered")
    open_one = go(ledger, request("open"))
    item = request("answered", "open", "free", "free too")
    decision = ledger.reserve(item)
    assert decision.go == [key("free"), key("free too")]
    assert hits(decision) == {key("answered"): "yes"}
    assert decision.taken == [key("open")]
    found = rows(ledger.database, "SELECT pos FROM asks WHERE attempt = ?", item.attempt)
    assert found == [(2,), (3,)]
    ledger.settle_all([released(open_one), released(item)])


def test_a_refusal_of_one_never_rolls_back_the_group(ledger: Ledger) -> None:
    ask_and_answer(ledger, "answered")
    found = wait_for(ledger.submit, [request("answered"), request("a"), request("b")])
    assert [decision and decision.go for decision in found] == [[], [key("a")], [key("b")]]
    assert counter(ledger.database) == (COST, 2 * WORST)


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_question_of_unknown_outcome_is_asked_again_so_often_and_then_held(
    ledger: Ledger, allowed: int
) -> None:
    for _ in range(1 + allowed):
        ledger.settle(unknown(go(ledger, request("q", max_unknown=allowed))))
    decision = ledger.reserve(request("q", max_unknown=allowed))
    assert decision == Decision(held={key("q"): 1 + allowed})
    assert counter(ledger.database) == (0, (1 + allowed) * WORST)
    ledger.settle(released(go(ledger, request("q", max_unknown=allowed + 1))))


def test_hold_never_asks_again(ledger: Ledger) -> None:
    ledger.settle(unknown(go(ledger, request("q", hold_unknown=True))))
    assert ledger.reserve(request("q", hold_unknown=True)).held == {key("q"): 1}


def test_a_late_answer_ends_the_hold(ledger: Ledger) -> None:
    lost = go(ledger, request("q"))
    ledger.settle(unknown(lost))
    ledger.settle(answered(lost))
    assert hits(ledger.reserve(request("q", max_unknown=0))) == {key("q"): "yes"}


def test_a_split_request_finds_answers_like_a_first_one(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q")
    assert ledger.reserve(request("q", kind="split")).hits


def test_a_group_in_doubt_goes_as_it_was_recorded_and_counts_once(ledger: Ledger) -> None:
    """Rule 10, with a request of which only a part was free."""
    other = go(ledger, request("open"))
    item = request("free", "open")
    assert ledger.reserve(item).go == [key("free")]
    ledger.settle(released(other))
    again = ledger_reserve_in_doubt(ledger, item)
    assert again == Decision(go=[key("free")], taken=[key("open")])
    assert counter(ledger.database) == (0, WORST)


def ledger_reserve_in_doubt(ledger: Ledger, item: object) -> Decision:
    from ondine_dagster.ledger.reserve import reserve
    from ondine_dagster.ledger.spend import moving

    process: bytes = value(ledger.database, "SELECT process FROM attempts LIMIT 1")
    with ledger.database.write() as connection, moving(connection) as movements:
        (found,) = reserve(connection, process, [item], movements, in_doubt=True)  # type: ignore[list-item]
    return found


def test_a_process_that_counts_as_dead_reserves_nothing(ledger: Ledger) -> None:
    item = go(ledger, request("before"))
    execute(ledger.database, "UPDATE processes SET state = 'dead'")
    with pytest.raises(OndineError, match="lock file"):
        ledger.reserve(request("q"))
    ledger.settle(answered(item))  # what was sent before is paid and true
    assert value(ledger.database, "SELECT count(*) FROM attempts") == 1
    assert ledger.look_up([key("before")], 100)
