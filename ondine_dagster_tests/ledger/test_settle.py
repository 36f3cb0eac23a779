"""T2: the state machine of a request, its money, and which answer is the current one."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Reservation, Settlement
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.provider import Usage, Verdict
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
    state,
    unknown,
    value,
)

ENDS = {"settled": answered, "released": released, "unknown": unknown}
# what a request is after it was in one state and a settlement says another
NEXT = {
    ("open", "settled"): "settled",
    ("open", "released"): "released",
    ("open", "unknown"): "unknown",
    ("unknown", "settled"): "settled",
    ("unknown", "released"): "released",
    ("unknown", "unknown"): "unknown",
    ("released", "settled"): "settled",
    ("released", "released"): "released",
    ("released", "unknown"): "released",
    ("settled", "settled"): "settled",
    ("settled", "released"): "settled",
    ("settled", "unknown"): "settled",
}
MONEY = {"settled": (COST, 0), "released": (0, 0), "unknown": (0, WORST), "open": (0, WORST)}


def bring_to(ledger: Ledger, state: str) -> Reservation:
    item = go(ledger, request("q"))
    if state != "open":
        ledger.settle(ENDS[state](item))
    return item


def test_the_table_of_transitions_is_complete() -> None:
    assert set(NEXT) == set(product(MONEY, ENDS))


@pytest.mark.parametrize(("before", "told"), NEXT)
def test_every_transition_moves_state_and_money_together(
    ledger: Ledger, before: str, told: str
) -> None:
    item = bring_to(ledger, before)
    ledger.settle(ENDS[told](item))
    after = NEXT[before, told]
    assert state(ledger, item) == after
    assert counter(ledger.database) == MONEY[after]
    asked = rows(ledger.database, "SELECT open, verdict FROM asks")
    assert asked == [(0, {"settled": "ok"}.get(after, after))]
    held = after == "unknown"
    assert value(ledger.database, "SELECT count(*) FROM answers") == (after == "settled")
    assert value(ledger.database, "SELECT count(*) FROM asks WHERE verdict='unknown'") == held


def test_settling_twice_moves_nothing_and_keeps_the_first_cost(ledger: Ledger) -> None:
    item = ask_and_answer(ledger, "q")
    ledger.settle(answered(item, text="another", cost=900))
    assert counter(ledger.database) == (COST, 0)
    assert hits(ledger.reserve(request("q"))) == {key("q"): "yes"}
    assert value(ledger.database, "SELECT count(*) FROM answers") == 1


@pytest.mark.parametrize("order", permutations(ENDS))
def test_an_answer_stands_however_its_group_is_ordered(
    ledger: Ledger, order: tuple[str, ...]
) -> None:
    """A run gives up on a request (unknown) while its answer is already queued."""
    item = go(ledger, request("q"))
    ledger.settle_all([ENDS[end](item) for end in order])
    assert state(ledger, item) == "settled"
    assert hits(ledger.reserve(request("q"))) == {key("q"): "yes"}
    assert counter(ledger.database) == (COST, 0)


def test_an_unknown_outcome_does_not_undo_a_refusal_in_its_group(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    ledger.settle_all([released(item), unknown(item)])
    assert state(ledger, item) == "released"
    assert counter(ledger.database) == (0, 0)


def test_a_late_settlement_counts_in_the_windows_of_its_reservation(ledger: Ledger) -> None:
    item = go(ledger, request("q", run_scope="old-run"))
    (day,) = rows(ledger.database, "SELECT day FROM attempts")[0]
    # as if it had been reserved in another month
    execute(ledger.database, "UPDATE attempts SET day = '2020-02-29'")
    execute(
        ledger.database,
        """UPDATE spend SET "window" = replace(replace("window", ?, '2020-02-29'), ?, '2020-02')""",
        day,
        day[:7],
    )
    ledger.settle(unknown(item))
    ledger.settle(answered(item))
    for window in ("run:old-run", "day:2020-02-29", "month:2020-02", "total"):
        assert counter(ledger.database, window=window) == (COST, 0)
        assert counter(ledger.database, "requests", window) == (1, 0)
        assert counter(ledger.database, "tokens", window) == (5, 0)
    assert counter(ledger.database, window=f"day:{day}") == (0, 0)


def test_more_than_was_reserved_is_recorded_as_it_is(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", cost=5 * WORST)
    assert counter(ledger.database) == (5 * WORST, 0)


def test_an_answer_without_usage_counts_its_reserved_tokens(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    ledger.settle(replace(answered(item), usage=Usage(prompt_tokens=3)))
    assert counter(ledger.database, "tokens") == (WORST_TOKENS, 0)


def test_money_beyond_64_bits_of_floats_stays_exact(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", cost=2**60 + 1)
    assert counter(ledger.database) == (2**60 + 1, 0)


def test_a_settlement_keeps_what_the_provider_said(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    usage = Usage(30, 20, cached_tokens=10, reasoning_tokens=5, cache_write_tokens=4)
    behind = {"provider_served": "Fireworks", "upstream_cost": 9, "is_byok": False}
    ledger.settle(replace(answered(item), usage=usage, remote_id="gen-1", **behind))
    found = rows(
        ledger.database,
        "SELECT prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, "
        "cache_write_tokens, model_served, provider_served, remote_id, cost, upstream_cost, "
        "is_byok, cost_source, t_end >= t_open FROM attempts",
    )
    served = ("m-2024", "Fireworks", "gen-1")
    assert found == [(30, 20, 10, 5, 4, *served, COST, 9, 0, "computed", 1)]


def test_a_failure_keeps_its_class_and_code(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    failed = replace(released(item), error_class=ErrorClass.CAPACITY, code=ErrorCode.RATE_LIMITED)
    ledger.settle(failed)
    assert rows(ledger.database, "SELECT class, code FROM attempts") == [
        ("capacity", "rate_limited")
    ]


def test_every_settlement_stands_in_the_outbox_once(ledger: Ledger) -> None:
    items = [ask_and_answer(ledger, name) for name in "abc"]
    ledger.settle(answered(items[0]))
    found = rows(ledger.database, "SELECT attempt, exported FROM outbox ORDER BY seq")
    assert found == [(item.attempt, 0) for item in items]


def test_a_run_that_wants_no_traces_leaves_nothing_in_the_outbox(ledger: Ledger) -> None:
    ledger.settle(answered(go(ledger, request("a", trace_percent=None, run_id="dagster-run"))))
    assert rows(ledger.database, "SELECT * FROM outbox") == []
    assert rows(ledger.database, "SELECT run_id, number, traced FROM attempts") == [
        ("dagster-run", 1, 0)
    ]


def test_a_request_that_was_never_reserved_is_refused_and_the_others_are_written(
    ledger: Ledger,
) -> None:
    good = go(ledger, request("q"))
    with pytest.raises(LookupError, match="never reserved"):
        ledger.settle_all([unknown(request("other")), answered(good)])
    assert state(ledger, good) == "settled"


def test_an_answer_to_a_question_that_was_not_asked_is_refused(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    foreign = replace(answered(request("other")), attempt=item.attempt)
    with pytest.raises(LookupError, match="not asked"):
        ledger.settle(foreign)
    assert state(ledger, item) == "open"


# several questions in one request


def test_a_question_that_stands_twice_in_a_request_is_one_ask(ledger: Ledger) -> None:
    item = request("a", "a", "b")
    assert ledger.reserve(item).go == [key("a"), key("b")]
    assert rows(ledger.database, "SELECT pos FROM asks") == [(0,), (2,)]
    ledger.settle(released(item))


def test_questions_of_a_request_end_each_with_its_own_verdict(ledger: Ledger) -> None:
    item = go(ledger, request("a", "b", "c"))
    whole = answered(item)
    first, second, _ = whole.answers
    cut = replace(second, verdict=Verdict.INVALID, code=ErrorCode.ANSWER_NOT_JSON)
    ledger.settle(replace(whole, answers=(first, cut)))
    found = rows(ledger.database, "SELECT verdict, cost_share, open FROM asks ORDER BY pos")
    assert found == [("ok", COST, 0), ("invalid", 0, 0), ("settled", None, 0)]
    assert set(ledger.look_up([key(name) for name in "abc"], 100)) == {key("a"), key("b")}


# which answer is the current one


def takes(ledger: Ledger) -> list[tuple[int, str]]:
    """Return all takes of all answers, the current ones marked by a star."""
    found = rows(ledger.database, "SELECT take, verdict, current FROM answers ORDER BY take")
    return [(take, verdict + "*" * current) for take, verdict, current in found]


def ask_again(ledger: Ledger, ceiling: int, kind: str = "first") -> Reservation:
    return go(ledger, request("q", ceiling=ceiling, kind=kind))  # type: ignore[arg-type]


def test_a_cut_answer_is_replaced_when_more_is_asked_for(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", verdict=Verdict.TRUNCATED)
    again = ask_again(ledger, 101)
    ledger.settle(answered(again, text="all of it"))
    assert takes(ledger) == [(1, "truncated"), (2, "ok*")]
    assert value(ledger.database, "SELECT kind FROM attempts WHERE id=?", again.attempt) == "retry"
    for ceiling in (1, 100, 101, 10_000):  # a finished answer is valid under any ceiling
        assert hits(ledger.reserve(request("q", ceiling=ceiling))) == {key("q"): "all of it"}


def test_a_cut_answer_serves_ceilings_up_to_its_own(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", verdict=Verdict.TRUNCATED)
    assert ledger.look_up([key("q")], 100)
    assert ledger.reserve(request("q", ceiling=99)).hits
    assert not ledger.look_up([key("q")], 101)


def test_an_answer_cut_again_under_a_higher_ceiling_is_current(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", verdict=Verdict.TRUNCATED)
    ledger.settle(answered(ask_again(ledger, 200), Verdict.TRUNCATED))
    assert takes(ledger) == [(1, "truncated"), (2, "truncated*")]
    assert ledger.look_up([key("q")], 200)


def test_a_late_cut_answer_does_not_push_out_the_whole_one(ledger: Ledger) -> None:
    """Else the whole answer, which was received, would be paid for again."""
    ask_and_answer(ledger, "q", verdict=Verdict.TRUNCATED)
    lost = ask_again(ledger, 200)
    ledger.settle(unknown(lost))
    ledger.settle(answered(ask_again(ledger, 1000), text="all of it"))
    ledger.settle(answered(lost, Verdict.TRUNCATED))
    assert takes(ledger) == [(1, "truncated"), (2, "ok*"), (3, "truncated")]
    assert hits(ledger.reserve(request("q", ceiling=1000))) == {key("q"): "all of it"}


def test_a_late_whole_answer_takes_the_place_of_a_cut_one(ledger: Ledger) -> None:
    lost = ask_again(ledger, 1000)
    ledger.settle(unknown(lost))
    ledger.settle(answered(ask_again(ledger, 100), Verdict.TRUNCATED))
    ledger.settle(answered(lost, text="all of it"))
    assert takes(ledger) == [(1, "truncated"), (2, "ok*")]
    assert hits(ledger.reserve(request("q", ceiling=2000))) == {key("q"): "all of it"}


def test_a_late_answer_cut_under_a_higher_ceiling_takes_the_place_of_one_cut_lower(
    ledger: Ledger,
) -> None:
    lost = ask_again(ledger, 1000)
    ledger.settle(unknown(lost))
    ledger.settle(answered(ask_again(ledger, 100), Verdict.TRUNCATED))
    ledger.settle(answered(lost, Verdict.TRUNCATED))
    assert ledger.reserve(request("q", ceiling=1000)).hits


def test_the_first_of_two_answers_stays_current(ledger: Ledger) -> None:
    lost = go(ledger, request("q"))
    ledger.settle(unknown(lost))
    ledger.settle(answered(go(ledger, request("q")), text="first"))
    ledger.settle(answered(lost, text="late"))
    assert hits(ledger.reserve(request("q"))) == {key("q"): "first"}
    assert takes(ledger) == [(1, "ok*"), (2, "ok")]
    assert sorted(rows(ledger.database, "SELECT take FROM asks")) == [(1,), (2,)]


@pytest.mark.parametrize("kind", ["retry", "reask"])
def test_an_answer_that_was_asked_for_anew_replaces_the_old_one(ledger: Ledger, kind: str) -> None:
    ask_and_answer(ledger, "q", verdict=Verdict.INVALID)
    ledger.settle(answered(ask_again(ledger, 100, kind), text="better"))
    assert takes(ledger) == [(1, "invalid"), (2, "ok*")]


def test_two_answers_of_one_question_in_one_group_leave_one_current(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q", verdict=Verdict.TRUNCATED)
    lost = ask_again(ledger, 200)
    ledger.settle(unknown(lost))
    again = ask_again(ledger, 300)
    ledger.settle_all([answered(lost, Verdict.TRUNCATED), answered(again, text="all of it")])
    assert takes(ledger) == [(1, "truncated"), (2, "truncated"), (3, "ok*")]


def test_an_answer_that_verifies_never_becomes_current(ledger: Ledger) -> None:
    ledger.settle(answered(ask_again(ledger, 100, "verify"), text="checked"))
    assert takes(ledger) == [(1, "ok")]
    ledger.settle(answered(go(ledger, request("q"))))
    ledger.settle(answered(ask_again(ledger, 100, "verify"), text="checked"))
    assert takes(ledger) == [(1, "ok"), (2, "ok*"), (3, "ok")]
    kinds = rows(ledger.database, "SELECT kind FROM attempts ORDER BY id")
    assert kinds == [("verify",), ("first",), ("verify",)]


def test_a_final_refusal_that_cost_nothing_is_remembered(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    remembered = replace(
        answered(item, Verdict.FAILED, "too long", cost=0).answers[0],
        code=ErrorCode.CONTEXT_LENGTH_EXCEEDED,
    )
    ledger.settle(replace(released(item), answers=(remembered,)))
    (answer,) = ledger.reserve(request("q", ceiling=9999)).hits.values()
    assert (answer.verdict, answer.code) == (Verdict.FAILED, ErrorCode.CONTEXT_LENGTH_EXCEEDED)
    assert counter(ledger.database) == (0, 0)
    assert counter(ledger.database, "requests") == (0, 0)


def test_answers_come_back_as_they_were_given(ledger: Ledger) -> None:
    item = go(ledger, request("q"))
    text = 'Grüße 😀 "quoted"\nnext line\x00 and a NUL'
    given = replace(answered(item, text=text).answers[0], flags=("a", "b"), finish_reason="stop")
    ledger.settle(replace(answered(item), answers=(given,)))
    (answer,) = ledger.look_up([key("q")], 100).values()
    assert (answer.text, answer.flags, answer.finish_reason) == (text, ("a", "b"), "stop")
    assert (answer.take, answer.attempt, answer.model_served) == (1, item.attempt, "m-2024")
    assert answer.usage == Usage(3, 2)


def test_settlements_may_be_many(ledger: Ledger) -> None:
    """More than one statement takes keys."""
    items = [request(index) for index in range(2500)]
    settlements = [Settlement(item.attempt, "released", cost=0) for item in items]
    for item in items[:10]:
        go(ledger, item)
    with pytest.raises(LookupError):
        ledger.settle_all(settlements)
    assert counter(ledger.database) == (0, 0)
