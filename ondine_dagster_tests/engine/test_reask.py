"""An answer that is rejected: asked for once more, with what was wrong, and paid as such."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace

import pytest

from ondine_dagster.engine.reasking import better_one
from ondine_dagster.engine.rows import Outcome, RowOutcome
from ondine_dagster.ledger.limits import Limit
from ondine_dagster.llm.reask import conversation
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import SCOPE, Harness, Run, question, questions

GOOD = "good"


def why(answer: str) -> str | None:
    """Reject every answer but one, and say which: the simulator answers with the token."""
    return None if answer == GOOD else f"it is no [[token={GOOD}]]"


@pytest.fixture
def harness(make_harness: MakeHarness, simulator: Simulator) -> Harness:
    made = make_harness(simulator.base_url)
    made.why_again = why
    return made


def kinds(harness: Harness) -> Counter[str]:
    return Counter(one.kind for one in harness.attempts())


@pytest.mark.behaviour("P-7")
def test_a_rejected_answer_is_asked_for_once_more_and_both_requests_are_charged_to_its_row(
    harness: Harness, simulator: Simulator
) -> None:
    rows = [question("[[token=bad]]"), question(f"[[token={GOOD}]] row 2")]
    run = harness.run(rows)
    assert run.texts == [GOOD, GOOD]
    assert [row.attempts for row in run.rows] == [2, 1]
    assert [row.flags for row in run.rows] == [("reasked",), ()]
    assert kinds(harness) == {"first": 2, "reask": 1}
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
    # the answer that was rejected is no longer current, and nobody pays again
    assert harness.run(rows).texts == [GOOD, GOOD]
    assert simulator.bill.totals.requests == 3
    assert harness.problems() == []


def test_the_model_sees_its_answer_and_what_was_wrong_with_it() -> None:
    first = question('It said "no".').messages
    again = json.loads(conversation(first, 'a "bad" one', "it is no number"))
    assert again[:-2] == json.loads(first)
    assert again[-2] == {"content": 'a "bad" one', "role": "assistant"}
    assert again[-1]["role"] == "user"
    assert "it is no number" in again[-1]["content"]


def test_a_stored_answer_is_not_asked_for_again(harness: Harness, simulator: Simulator) -> None:
    harness.why_again = None
    harness.run([question("[[token=bad]]")])
    harness.why_again = why
    assert harness.run([question("[[token=bad]]")]).texts == ["bad"]
    assert simulator.bill.totals.requests == 1


def test_an_answer_that_another_process_paid_for_meanwhile_is_not_asked_for_again() -> None:
    paid = RowOutcome(outcome=Outcome.ANSWERED, text="bad", cost_source="computed")
    assert better_one(question("1"), paid, why) is not None
    found_when_reserving = replace(paid, cost_source="reused")
    assert better_one(question("1"), found_when_reserving, why) is None


def test_an_answer_that_is_rejected_twice_is_the_last_one(
    harness: Harness, simulator: Simulator
) -> None:
    harness.why_again = lambda answer: "it is no [[token=better]]"
    (row,) = harness.run([question("[[token=bad]]")]).rows
    assert (row.text, row.attempts) == ("better", 2)
    assert simulator.bill.totals.requests == 2


def test_where_no_better_answer_comes_the_first_stays(
    harness: Harness, simulator: Simulator
) -> None:
    harness.why_again = lambda answer: "not so [[fault=500]]"
    (row,) = harness.run([question("[[token=bad]]")], max_attempts=2).rows
    assert (row.outcome, row.text, row.flags) == (Outcome.ANSWERED, "bad", ())
    assert row.attempts == 3  # the question, and its repetition under max_attempts
    assert row.cost == simulator.bill.totals.picodollars
    assert harness.run([question("[[token=bad]]")]).texts == ["bad"]
    assert harness.problems() == []


def test_a_better_answer_that_is_too_dear_stops_nobody(
    harness: Harness, simulator: Simulator
) -> None:
    provider, rows = harness.provider, [question("[[token=bad]]"), *questions(3)]
    long = "x" * 4000  # what is asked again with it costs far more than a row at first
    harness.why_again = lambda answer: long if answer == "bad" else None
    dearest = max(
        provider.worst_case(provider.prompt_tokens_bound(row.messages), provider.ceiling)
        for row in rows
    )
    harness.limits = (Limit(SCOPE, "total", "usd", dearest + dearest // 4),)
    run = harness.run(rows, concurrency=1)
    assert set(run.outcomes) == {Outcome.ANSWERED}
    assert run.texts[0] == "bad"
    assert simulator.bill.totals.requests == 4
    assert harness.problems() == []


def test_under_faults_each_row_is_asked_again_at_most_once(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.fail(FaultPlan(seed=3, rates={"500": 0.2}))
    run = harness.run([question(f"[[token=bad]] {n}") for n in range(40)], max_attempts=8)
    assert set(run.texts) == {GOOD}
    settled = Counter(one.kind for one in harness.attempts() if one.state == "settled")
    assert settled == {"first": 40, "reask": 40}
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
    assert harness.problems() == []


def test_of_a_pack_only_the_rejected_rows_are_asked_again_each_alone(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(5)
    words = ["bad", GOOD, GOOD, "bad", GOOD]
    rows = [question(f"[[token={word}]] {n}") for n, word in enumerate(words)]
    run = harness.run(rows, concurrency=1)
    assert run.texts == [GOOD] * 5
    assert kinds(harness) == {"first": 1, "reask": 2}
    assert [row.flags for row in run.rows] == [
        ("reasked",) if word == "bad" else () for word in words
    ]
    assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
    harness.pack(None)
    assert harness.run(rows).texts == [GOOD] * 5
    assert simulator.bill.totals.requests == 3
    assert harness.problems() == []


def test_engines_that_share_rows_ask_for_each_at_most_once_more(
    make_harness: MakeHarness, simulator_factory: type[Simulator]
) -> None:
    simulator = simulator_factory(latency_ms=5, jitter_ms=5)
    rows = [question(f"[[token=bad]] {n}") for n in range(60)]
    runs: list[Run] = []

    def run(first: int, last: int) -> None:
        own = make_harness(simulator.base_url)
        own.why_again = why
        runs.append(own.run(rows[first:last], concurrency=4))

    threads = [threading.Thread(target=run, args=part) for part in ((0, 40), (20, 60))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    harness = make_harness(simulator.base_url)
    assert kinds(harness) == {"first": 60, "reask": 60}
    assert simulator.bill.totals.requests == 120
    # who only saw the first answer of a shared row keeps it; the better one is there for all
    assert {text for one in runs for text in one.texts} <= {GOOD, "bad"}
    assert harness.run(rows).texts == [GOOD] * 60
    assert sum(row.cost for one in runs for row in one.rows) == simulator.bill.totals.picodollars
    assert harness.problems() == []
