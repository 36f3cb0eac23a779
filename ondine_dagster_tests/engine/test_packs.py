"""Many questions in one request: each keeps its own answer, its own cost, and is paid once."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ondine_dagster.engine.job import Job
from ondine_dagster.engine.pack_sizes import PackSizes
from ondine_dagster.engine.pilot import PilotPlan
from ondine_dagster.engine.rows import DAMAGE, REPAIRED, Outcome, Question, RowOutcome
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.estimates import Estimator
from ondine_dagster.ledger.learnt import Learnt, learnt
from ondine_dagster.ledger.limits import Limit
from ondine_dagster.ledger.pack_estimates import PackedRequests
from ondine_dagster.ledger.rates import Rates
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.packing import packable
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster_tests.engine.background import Background
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import DATASET, SCOPE, Harness, question, questions
from ondine_dagster_tests.engine.test_processes import COUNT, begin, process, wait_until_ready

ROWS = 60
TEXTS = [str(n) for n in range(ROWS)]


def faulty(fault: str, share: float = 1.0) -> FaultPlan:
    return FaultPlan(seed=3, rates={fault: share})


def asks(harness: Harness) -> list[sa.Row[Any]]:
    """Return every question of every request, with the request's own end and cost."""
    attempts, asked = schema.attempts.c, schema.asks
    columns = (attempts.id, attempts.kind, attempts.state, attempts.cost, attempts.reserved)
    statement = sa.select(asked, *columns).join_from(
        asked, schema.attempts, asked.c.attempt == attempts.id
    )
    with harness.ledger.database.read() as connection:
        return list(connection.execute(statement.order_by(attempts.id)).all())


def assert_money_adds_up(harness: Harness, simulator: Simulator) -> None:
    """Compare bill, requests, and the shares of their questions, to the picodollar."""
    shares: Counter[bytes] = Counter()
    for one in asks(harness):
        if one.state == "settled":
            shares[one.attempt] += one.cost_share
    settled = {one.id: one.cost for one in harness.attempts() if one.state == "settled"}
    assert shares == settled
    assert all(one.cost is None or one.cost <= one.reserved for one in harness.attempts())
    unknown = sum(one.reserved for one in harness.attempts() if one.state == "unknown")
    assert sum(settled.values()) <= simulator.bill.totals.picodollars
    assert simulator.bill.totals.picodollars <= sum(settled.values()) + unknown
    assert harness.problems() == []


@pytest.mark.parametrize("order", [(1, 25, None, 7), (None, 7, 1), (25, 1, None)])
def test_another_size_of_packs_asks_nobody_again(
    harness: Harness, simulator: Simulator, order: tuple[int | None, ...]
) -> None:
    for rows in order:
        harness.pack(rows)
        run = harness.run(questions(ROWS))
        assert run.texts == TEXTS
        assert simulator.bill.totals.requests == len(harness.attempts())
        assert set(simulator.bill.snapshot().rows.values()) == {1}
        if rows == order[0]:
            assert sum(row.cost for row in run.rows) == simulator.bill.totals.picodollars
            assert sum(row.requests for row in run.rows) == simulator.bill.totals.requests
            usage = [row.usage.prompt_tokens or 0 for row in run.rows]
            assert sum(usage) == simulator.bill.totals.prompt_tokens
        else:
            assert {row.cost_source for row in run.rows} == {"reused"}
    assert_money_adds_up(harness, simulator)


def test_what_another_run_has_paid_is_asked_in_no_pack(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(ROWS)
    harness.run(rows[::3])
    paid = simulator.bill.totals.requests
    harness.pack(25)
    assert harness.run(rows).texts == TEXTS
    assert simulator.bill.totals.requests == paid + 2  # 40 rows are left
    assert set(simulator.bill.snapshot().rows.values()) == {1}


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize("fault", [*PACK_CONTENTS, "length", "broken_content", "null_content"])
def test_damage_costs_only_the_rows_that_it_touches(
    harness: Harness, simulator: Simulator, fault: str, kind: Any
) -> None:
    simulator.fail(faulty(fault))  # every pack; a request for one row has no fault of packs
    harness.pack(20, kind)
    rows = questions(ROWS)
    if fault not in PACK_CONTENTS:
        simulator.fail(faulty(f"{fault} times=1", 0.5))
    run = harness.run(rows, concurrency=2)
    single_fault = fault not in PACK_CONTENTS
    if not single_fault:
        assert run.texts == TEXTS
    assert all(text in (None, "", str(n)) or single_fault for n, text in enumerate(run.texts))
    found = asks(harness)
    paid = Counter(one.row_key for one in found if one.state == "settled")
    assert max(paid.values()) <= 3
    repaired = {f"row-{n}" for n, row in enumerate(run.rows) if REPAIRED in row.flags}
    assert repaired == {key for key, times in paid.items() if times > 1}
    for n, row in enumerate(run.rows):  # the ledger says why, as the row does
        verdicts = {one.verdict for one in found if one.row_key == f"row-{n}"}
        assert {one for one in verdicts if one.startswith(DAMAGE)} == {
            one for one in row.flags if one.startswith(DAMAGE)
        }
        assert "settled" not in verdicts
    kinds = {one.kind for one in found if one.row_key in repaired}
    assert kinds == ({"first", "split"} if repaired else set())
    if fault in ("pack_reordered", "pack_prose"):
        assert not repaired
    elif fault == "pack_missing":  # of 20 seven are lost; of these seven, two; of those, none
        assert Counter(paid.values()) == {1: 39, 2: 15, 3: 6}
        assert simulator.bill.totals.requests == 3 + 3 + 6
    assert_money_adds_up(harness, simulator)
    before = simulator.bill.totals.requests
    assert harness.run(rows).texts == run.texts
    assert simulator.bill.totals.requests == before


def test_the_whole_rows_of_an_answer_that_was_cut_are_kept(
    harness: Harness, simulator: Simulator
) -> None:
    rows = questions(ROWS)
    rows[7] = replace(question("[[token=7]] [[fault=length times=1]]"), row_key="row-7")
    harness.pack(30)
    run = harness.run(rows, concurrency=1)
    assert run.outcomes.count(Outcome.ANSWERED) >= ROWS - 1
    first, second, *repairs = harness.attempts()
    assert (first.code, second.code) == ("truncated", None)
    assert all(one.kind == "split" for one in repairs)
    kept = [one for one in asks(harness) if one.attempt == first.id and one.verdict == "ok"]
    assert len(kept) > 5
    assert_money_adds_up(harness, simulator)


def test_a_pack_that_is_refused_for_now_is_asked_again_as_it_is(
    harness: Harness, simulator: Simulator, short_waits: None
) -> None:
    rows = questions(ROWS)
    rows[3] = replace(question("[[token=3]] [[fault=429 times=2 retry_after=0]]"), row_key="row-3")
    rows[33] = replace(question("[[token=33]] [[fault=reset_after times=1]]"), row_key="row-33")
    harness.pack(20)
    run = harness.run(rows)
    assert run.texts == TEXTS
    assert harness.states() == {"settled": 3, "released": 2, "unknown": 1}
    assert {one.kind for one in harness.attempts()} == {"first"}
    unknown = [one for one in harness.attempts() if one.state == "unknown"]
    assert sum(row.unknown_cost for row in run.rows) == unknown[0].reserved
    assert run.engine.progress.retries == 3  # of requests, not of rows
    assert_money_adds_up(harness, simulator)


def test_a_pack_that_times_out_twice_is_asked_row_by_row(
    make_harness: MakeHarness, simulator: Simulator, short_waits: None
) -> None:
    harness = make_harness(simulator.base_url)
    rows = questions(9)
    rows[4] = replace(question("[[token=4]] [[fault=stall times=2]]"), row_key="row-4")
    harness.pack(9)
    run = harness.run(rows, timeout_seconds=0.3, concurrency=1)
    # alone it stalls twice more, and is then asked no more than max_unknown allows
    assert run.texts[:4] + run.texts[5:] == [str(n) for n in range(9) if n != 4]
    assert [len(one) for one in simulator.bill.snapshot().carried] == [9, 9, *[1] * 9]
    assert run.outcomes[4] is Outcome.HELD
    assert harness.states() == {"unknown": 3, "settled": 8}
    assert_money_adds_up(harness, simulator)


@pytest.mark.parametrize("fault", ["400", "content_policy", "context_length"])
def test_a_row_that_is_refused_takes_no_other_with_it(
    harness: Harness, simulator: Simulator, fault: str
) -> None:
    rows = questions(ROWS)
    rows[41] = replace(question(f"[[fault={fault}]] x"), row_key="row-41")
    harness.pack(20)
    run = harness.run(rows)
    assert run.rows[41].outcome is Outcome.ERROR
    assert run.texts[:41] + run.texts[42:] == TEXTS[:41] + TEXTS[42:]
    assert set(simulator.bill.snapshot().rows.values()) == {1}  # refusals cost nothing
    assert simulator.bill.totals.requests <= 3 + 2 * 6
    assert_money_adds_up(harness, simulator)


def test_rows_with_other_instructions_or_of_other_partitions_are_not_asked_together(
    harness: Harness, simulator: Simulator
) -> None:
    rows = [question(f"[[token={n}]] row", f"row-{n}", system=f"Rule {n % 2}") for n in range(20)]
    harness.pack(50)
    run = harness.run(rows, questions(5, "[[token=b{n}]]"))
    assert [row.text for row in run.partition("p0")] == [str(n) for n in range(20)]
    carried = {frozenset(rows) for rows in simulator.bill.snapshot().carried}
    assert carried == {
        frozenset(str(n) for n in range(0, 20, 2)),
        frozenset(str(n) for n in range(1, 20, 2)),
        frozenset(f"b{n}" for n in range(5)),
    }


def test_a_budget_that_has_no_room_for_a_pack_makes_smaller_ones(
    make_harness: MakeHarness, simulator: Simulator
) -> None:
    harness = make_harness(simulator.base_url, max_tokens=100)
    rows = questions(200)
    alone = harness.provider.worst_case(
        harness.provider.prompt_tokens_bound(rows[-1].messages), harness.provider.ceiling
    )
    budget = 10 * alone
    harness.limits = (Limit(SCOPE, "total", "usd", budget),)
    harness.pack(100)
    run = harness.run(rows, concurrency=2)
    paid = simulator.bill.totals.picodollars
    assert budget - alone <= paid <= budget  # all of it is used, and no more
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.BUDGET_USED_UP
    answered = run.outcomes.count(Outcome.ANSWERED)
    assert answered == sum(simulator.bill.snapshot().rows.values()) > 30
    assert set(run.outcomes) == {Outcome.ANSWERED, Outcome.NOT_ATTEMPTED}
    assert {one.kind for one in harness.attempts()} == {"first"}  # nothing is asked again
    assert_money_adds_up(harness, simulator)


def test_a_budget_of_requests_is_not_broken_up(harness: Harness, simulator: Simulator) -> None:
    harness.limits = (Limit(SCOPE, "total", "requests", 2),)
    harness.pack(20)
    run = harness.run(questions(ROWS), concurrency=1)
    assert run.outcomes.count(Outcome.ANSWERED) == 40
    assert simulator.bill.totals.requests == 2


def test_a_pack_asks_for_no_more_than_the_model_can_put_out(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(50, most=4000)
    assert harness.run(questions(ROWS)).texts == TEXTS
    each = harness.provider.ceiling
    sent = sorted(one.reserved_tokens for one in harness.attempts())
    assert sent[0] > 4000 and sent[-1] < 10 * each
    assert simulator.bill.totals.requests == 2


SYSTEM = "Say what it is about, in one word. " * 20


def asked_about(name: str, count: int = 200) -> list[Question]:
    return [question(f"[[token={name}{n}]] row {n}", system=SYSTEM) for n in range(count)]


def estimators(harness: Harness) -> tuple[Learnt, Estimator]:
    """Return what was learnt, and what tells of requests as the harness sends them now."""
    with harness.ledger.database.read() as connection:
        known = learnt(connection, harness.provider, DATASET)
    assert known is not None
    prefix = packable(asked_about("x", 1)[0].messages)
    assert prefix is not None
    packs = harness.packs
    packed = packs and PackedRequests(harness.provider, packs, prefix.prefix)
    return known, Estimator(harness.provider, known, packed)


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize("rows", [20, None])
def test_an_estimate_comes_near_to_what_packs_use(
    harness: Harness, simulator: Simulator, rows: int | None, kind: Any
) -> None:
    harness.pack(rows, kind)
    harness.run(asked_about("first"), concurrency=1)
    before = simulator.bill.totals
    known, estimator = estimators(harness)
    assert known.completion_tokens < 30  # of one answer, not of a pack
    sizes = Counter(estimator.size(one.messages) for one in asked_about("new"))
    found, alone = estimator.together(sizes, [200]), estimator.first(sizes)
    harness.run(asked_about("new"), concurrency=1)
    now = simulator.bill.totals
    paid, tokens = now.picodollars - before.picodollars, now.prompt_tokens - before.prompt_tokens
    assert found.rows == 200
    if rows:
        assert found.requests == 10 == now.requests - before.requests
        assert found.prompt_tokens == pytest.approx(tokens, rel=0.1)
        assert found.expected == pytest.approx(paid, rel=0.1)
    assert found.expected < 1.1 * paid < 2.2 * found.expected  # auto begins small
    assert found.expected < alone.expected / 3
    assert found.most > alone.most > paid
    assert found.each == pytest.approx(found.expected / 200)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_estimates_hold_from_single_rows_to_packs_and_back(
    harness: Harness, simulator: Simulator, kind: Any
) -> None:
    harness.run(asked_about("learnt", 60), concurrency=4)
    for step, rows in enumerate((20, 1, 20, 1)):
        harness.pack(rows, kind)
        _, estimator = estimators(harness)
        new = asked_about(f"step{step}", 60)
        found = estimator.together(Counter(estimator.size(one.messages) for one in new), [60])
        before = simulator.bill.totals
        harness.run(new, concurrency=4)
        now = simulator.bill.totals
        assert found.requests == now.requests - before.requests == 60 // rows
        used = now.completion_tokens - before.completion_tokens
        assert found.completion_tokens == pytest.approx(used, rel=0.2)
        assert found.prompt_tokens == pytest.approx(
            now.prompt_tokens - before.prompt_tokens, rel=0.15
        )
        assert found.expected == pytest.approx(now.picodollars - before.picodollars, rel=0.1)


def test_an_allowance_of_tokens_is_used_up_by_smaller_packs(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(100)
    run = harness.run(questions(2000), rates=Rates(tokens_per_day=8_000), concurrency=2)
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is ErrorCode.RATE_LIMITED_DAILY
    totals = simulator.bill.totals
    assert 6_000 < totals.prompt_tokens + totals.completion_tokens <= 8_000
    assert_money_adds_up(harness, simulator)


def test_a_bad_prompt_costs_no_more_than_the_rows_of_the_pilot(
    harness: Harness, simulator: Simulator
) -> None:
    def rejection(outcome: RowOutcome) -> str | None:
        return "it says bad" if outcome.text == "bad" else None

    harness.pilot = PilotPlan(20, rejection, max_rejected=0.5, max_cost_ratio=3)
    harness.pack(50)
    run = harness.run(questions(300, "[[token=bad]] row {n}"))
    assert run.engine.pilot is not None and run.engine.pilot.breach is not None
    assert simulator.bill.totals.requests == 1
    assert run.outcomes.count(Outcome.ANSWERED) == 20
    good = harness.run(questions(300))
    assert good.texts == [str(n) for n in range(300)]
    assert simulator.bill.totals.requests == 1 + 1 + 6


def test_an_outage_costs_packs_no_row(
    make_harness: MakeHarness, simulator_factory: type[Simulator], short_cooldowns: None
) -> None:
    simulator = simulator_factory(latency_ms=5)
    harness = make_harness(simulator.base_url)
    harness.pack(5)
    running = Background(harness.engine(concurrency=4), questions(600))
    assert simulator.bill.wait_for(lambda totals: totals.answered >= 20)
    simulator.outage("503")
    assert simulator.bill.wait_for(lambda totals: totals.during_outage >= 15)
    simulator.recover()
    running.join()
    assert [row.text for row in running.rows] == [str(n) for n in range(600)]
    assert set(simulator.bill.snapshot().rows.values()) == {1}
    assert_money_adds_up(harness, simulator)


# auto


def sizes(simulator: Simulator) -> list[int]:
    """Return how many rows each request had."""
    return [len(rows) for rows in simulator.bill.snapshot().carried]


def test_auto_grows_while_answers_come_whole_and_shrinks_while_they_do_not(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(None)
    rows = questions(600, "[[token={n}]] row {n}, " + "said at some length " * 5)
    harness.run(rows, concurrency=1)
    found = sizes(simulator)
    assert found[0] == 10 and max(found) > 20 and sum(found) == 600
    simulator.fail(faulty("pack_missing"))
    before = len(found)
    more = questions(300, "[[token=m{n}]] row {n}, " + "said at some length " * 5)
    assert harness.run(more, concurrency=1).outcomes == [Outcome.ANSWERED] * 300
    later = sizes(simulator)[before:]
    assert later[0] == 10 and later[-1] == 1
    assert_money_adds_up(harness, simulator)


@pytest.mark.parametrize("kind", ["instructions", "retries"])
def test_auto_keeps_the_concurrency_where_nothing_can_go_together(
    harness: Harness, simulator: Simulator, kind: str
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=20)
    harness.pack(None)
    rows = [question(f"[[token={n}]]", f"r{n}", system=f"Rule {n}") for n in range(40)]
    if kind == "retries":
        rows = [replace(row, alone=True) for row in questions(40)]
    assert harness.run(rows, concurrency=8).texts == [str(n) for n in range(40)]
    assert simulator.bill.totals.max_in_flight == 8


def test_auto_shrinks_where_packs_are_refused_for_their_size(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.fail(faulty("context_length times=1"))  # every request once, of any size
    harness.pack(None)
    rows = questions(60, "[[token={n}]] row {n}, " + "said at some length " * 5)
    harness.run(rows, concurrency=1)
    found = [len(one) for one in simulator.bill.snapshot().carried]
    assert simulator.bill.totals.answered == len(found) < 60
    first = [one for one in harness.attempts() if one.kind == "first"]
    assert len(first) > 12  # smaller and smaller ones, else it were six


def test_auto_finds_out_with_few_requests_at_once_what_it_can_ask(
    harness: Harness, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=20)
    harness.pack(None)
    text = "[[token={n}]] row {n}, " + "said at some length " * 5
    harness.run(questions(400, text), concurrency=16)
    found = sizes(simulator)
    assert found[:2] == [10, 10] and len(found) < 25
    assert simulator.bill.totals.max_in_flight > 2


def test_auto_leaves_long_rows_alone_whose_shared_part_is_nothing(
    harness: Harness, simulator: Simulator
) -> None:
    harness.pack(None)
    harness.run(questions(8, "[[token={n}]] " + "a long story " * 8000))
    assert sizes(simulator) == [1] * 8


def test_what_fits_into_the_model_bounds_packs_of_a_declared_size_too(
    make_harness: MakeHarness, simulator: Simulator
) -> None:
    harness = make_harness(simulator.base_url, max_tokens=100)
    harness.pack(50)
    assert harness.packs is not None
    found = PackSizes(harness.packs, lambda: None)
    jobs = [Job(one, "p") for one in questions(50)]
    assert all(job.goes_with() for job in jobs)
    assert found.next(jobs) == 50
    found.window = 2000
    assert 10 < found.next(jobs) < 20
    found.window = 10
    assert found.next(jobs) == 1
    found.window = None
    found.too_dear(8)
    assert found.next(jobs) == 4


# several processes, deaths


def test_two_engines_with_packs_of_other_sizes_over_the_same_rows_pay_each_once(
    make_harness: MakeHarness, simulator_factory: type[Simulator]
) -> None:
    simulator = simulator_factory(latency_ms=5, jitter_ms=5)
    harness = make_harness(simulator.base_url)
    rows = questions(300)
    runs: dict[int, list[str | None]] = {}

    def run(first: int, last: int, size: int | None) -> None:
        own = make_harness(simulator.base_url)
        own.pack(size)
        runs[first] = own.run(rows[first:last], concurrency=4).texts

    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in ((0, 200, 25), (100, 300, 7), (50, 250, None))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [str(n) for n in range(300)]
    assert runs == {0: texts[:200], 100: texts[100:], 50: texts[50:250]}
    assert simulator.bill.snapshot().rows == Counter(dict.fromkeys(texts, 1))
    assert_money_adds_up(harness, simulator)


def test_what_a_dead_process_had_in_its_packs_is_asked_again_and_nothing_else(
    make_harness: MakeHarness, simulator: Simulator, tmp_path: Path
) -> None:
    harness = make_harness(simulator.base_url, "shared")
    simulator.hold()
    with process(tmp_path / "shared", simulator.base_url, rows_per_request=10) as victim:
        wait_until_ready(victim)
        begin(victim)
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 8)
        victim.kill()
        victim.wait(10)
    simulator.release()
    harness.pack(25)
    texts = [str(n) for n in range(COUNT)]
    assert harness.run(questions(COUNT)).texts == texts
    asked = simulator.bill.snapshot().rows
    assert asked == Counter(texts) + Counter(texts[:80])
    assert harness.states()["unknown"] == 8
    assert_money_adds_up(harness, simulator)
    harness.packs = None
    requests = simulator.bill.totals.requests
    assert harness.run(questions(COUNT)).texts == texts
    assert simulator.bill.totals.requests == requests <= 20
