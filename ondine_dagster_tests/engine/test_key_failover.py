"""Several API keys in runs over sockets: who is asked with a bad one, what is paid by which."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ondine_dagster.engine.rows import Outcome
from ondine_dagster.ledger.key_fingerprints import fingerprinter
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import Harness, Run, questions
from ondine_dagster_tests.workbench import MakeBench, numbered

GOOD, REVOKED, CAPPED = KEYS = ("sk-canary-good", "sk-canary-revoked", "sk-canary-capped")
ROWS, CONCURRENCY = 240, 8
BAD = {GOOD: "401", REVOKED: "402", CAPPED: "403 code=key_limit"}

Started = Callable[..., Simulator]


def sender(key: str) -> str:
    """Return what the bill calls a key."""
    return hashlib.sha256(f"Bearer {key}".encode()).hexdigest()


def asked_with(simulator: Simulator) -> dict[str, int]:
    """Return how many requests came with each key."""
    found = simulator.bill.snapshot().authorizations
    assert found.keys() <= {sender(key) for key in KEYS}
    return {key: found.get(sender(key), 0) for key in KEYS}


def paid_with(simulator: Simulator) -> dict[str, int]:
    """Return the provider's bill for each key, in picodollars."""
    spent = simulator.bill.snapshot().spent
    return {key: spent[sender(key)] for key in KEYS if sender(key) in spent}


def recorded_for(harness: Harness) -> dict[str, int]:
    """Return what the ledger says was paid with each key, in picodollars."""
    fingerprint = fingerprinter(harness.ledger.database)
    names = {fingerprint(SecretStr(key)): key for key in KEYS}
    costs: Counter[str] = Counter()
    for attempt in harness.attempts():
        if attempt.state == "settled":
            costs[names[attempt.key_fp]] += attempt.cost
    return dict(costs)


def with_keys(harness: Harness, *keys: str) -> Harness:
    harness.keys = keys
    return harness


def refuse_to_show_a_key(run: Run, folder: Path) -> None:
    """Look for keys in what came out of a run, and in what it left on the disk."""
    assert "canary" not in repr((run.chunks, run.engine.stopped, run.engine.progress))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not any(b"canary" in path.read_bytes() for path in files)


# one is left


@pytest.mark.behaviour("B-3b")
@pytest.mark.parametrize("cap", ["402 code=key_limit", "403 code=key_limit", "insufficient_quota"])
def test_rows_of_bad_keys_are_answered_with_the_good_one(
    make_harness: MakeHarness, simulator_factory: Started, tmp_path: Path, cap: str
) -> None:
    """One key is revoked from the start, one is used up in the middle of the run."""
    simulator = simulator_factory(latency_ms=4, keys={REVOKED: "401", CAPPED: f"{cap} after=40"})
    harness = with_keys(make_harness(simulator.base_url), *KEYS)
    run = harness.run(questions(ROWS), concurrency=CONCURRENCY, max_attempts=1)
    assert run.texts == [str(n) for n in range(ROWS)]
    assert run.engine.stopped is None

    asked = asked_with(simulator)
    assert 1 <= asked[REVOKED] <= CONCURRENCY
    assert 40 < asked[CAPPED] <= 40 + CONCURRENCY
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (ROWS, 0)
    paid = paid_with(simulator)
    assert paid.keys() == {GOOD, CAPPED}
    assert recorded_for(harness) == paid
    assert harness.states() == {"settled": ROWS, "released": bill.refused}
    assert harness.problems() == []
    refuse_to_show_a_key(run, tmp_path)


@pytest.mark.behaviour("B-3b")
@pytest.mark.behaviour("P-21")
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_bad_key_costs_a_row_one_request_and_none_of_its_attempts(
    make_harness: MakeHarness, simulator_factory: Started, short_waits: None, max_attempts: int
) -> None:
    simulator = simulator_factory(keys={REVOKED: "401", CAPPED: "403 code=key_limit"})
    harness = with_keys(make_harness(simulator.base_url), REVOKED, CAPPED, GOOD)
    run = harness.run(questions(1, "[[fault=500]] {n}"), concurrency=1, max_attempts=max_attempts)
    asked = asked_with(simulator)
    assert asked[REVOKED] == 1
    assert asked[CAPPED] <= 1
    assert asked[GOOD] == max_attempts
    assert [row.outcome for row in run.rows] == [Outcome.ERROR]


@pytest.mark.behaviour("B-3b")
@pytest.mark.parametrize(
    "refusal", ["429 retry_after=0", "429 code=slow_down", "402 retry_after=0"]
)
def test_a_limit_of_the_platform_benches_no_key(
    make_harness: MakeHarness, simulator_factory: Started, short_waits: None, refusal: str
) -> None:
    simulator = simulator_factory(keys={REVOKED: f"{refusal} after=10 times=4"})
    harness = with_keys(make_harness(simulator.base_url), GOOD, REVOKED)
    run = harness.run(questions(100), concurrency=4)
    assert set(run.outcomes) == {Outcome.ANSWERED}
    asked = asked_with(simulator)
    assert asked[GOOD] + asked[REVOKED] == 104
    assert abs(asked[GOOD] - asked[REVOKED]) <= 1  # still in turn
    assert recorded_for(harness) == paid_with(simulator)


# none is left


@pytest.mark.behaviour("B-3b")
@pytest.mark.parametrize("concurrency", [1, CONCURRENCY])
def test_when_all_keys_are_bad_the_run_stops_and_says_why_for_each(
    make_harness: MakeHarness, simulator_factory: Started, tmp_path: Path, concurrency: int
) -> None:
    simulator = simulator_factory(keys=BAD)
    harness = with_keys(make_harness(simulator.base_url), *KEYS)
    run = harness.run(questions(ROWS), concurrency=concurrency)
    assert run.outcomes == [Outcome.NOT_ATTEMPTED] * ROWS
    # who was in flight tries each key once at most; no further row is sent
    assert all(1 <= asked <= concurrency for asked in asked_with(simulator).values())
    assert simulator.bill.totals.charged == 0
    assert harness.states().keys() == {"released"}
    assert harness.problems() == []

    assert run.engine.stopped is not None
    said = run.engine.stopped.message
    fingerprint = fingerprinter(harness.ledger.database)
    for number, key in enumerate(KEYS, 1):
        assert f"key {number} of 3 (fingerprint {fingerprint(SecretStr(key)).hex()}): HTTP " in said
    assert [status in said for status in ("HTTP 401", "HTTP 402", "HTTP 403")] == [True] * 3
    refuse_to_show_a_key(run, tmp_path)


@pytest.mark.behaviour("B-3b")
@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ("401", ErrorCode.UNAUTHORIZED),
        ("402", ErrorCode.PAYMENT_REQUIRED),
        ("403 code=key_limit", ErrorCode.KEY_BUDGET),
        ("insufficient_quota", ErrorCode.QUOTA_EXHAUSTED),
    ],
)
def test_one_bad_key_stops_the_run_after_the_first_answer(
    make_harness: MakeHarness, simulator_factory: Started, refusal: str, code: ErrorCode
) -> None:
    simulator = simulator_factory(keys={REVOKED: refusal})
    harness = with_keys(make_harness(simulator.base_url), REVOKED)
    run = harness.run(questions(ROWS), concurrency=1)
    assert asked_with(simulator)[REVOKED] == 1
    assert run.outcomes == [Outcome.NOT_ATTEMPTED] * ROWS
    assert run.engine.stopped is not None
    assert run.engine.stopped.code is code

    harness.keys = (GOOD,)  # and with a good one nothing is lost
    assert harness.run(questions(ROWS)).texts == [str(n) for n in range(ROWS)]
    assert simulator.bill.totals.charged == ROWS


# as a user sees it


@pytest.mark.behaviour("B-3b")
def test_a_dataset_goes_on_with_the_keys_that_are_left(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {REVOKED: "401", CAPPED: "403 code=key_limit after=10"}
    simulator.settings = replace(simulator.settings, keys=keys)
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", f"{REVOKED}, {CAPPED} {GOOD}")
    bench = make_bench(numbered(60))
    bench.snapshot()
    assert bench.run().success
    assert set(bench.states().values()) == {"done"}
    recorded: Counter[bytes] = Counter()
    for attempt in bench.attempts(where="state = 'settled'"):
        recorded[attempt.key_fp] += attempt.cost
    fingerprint = fingerprinter(bench.ledger.database)
    paid = paid_with(simulator)
    assert paid.keys() == {GOOD, CAPPED}
    assert recorded == {fingerprint(SecretStr(key)): cost for key, cost in paid.items()}
    assert bench.contradictions() == []


@pytest.mark.behaviour("B-3b")
def test_a_dataset_without_a_good_key_says_so_and_shows_none(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.settings = replace(simulator.settings, keys=BAD)
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", ",".join(KEYS))
    bench = make_bench(numbered(60))
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    said = str(failure.step_failure_data)
    assert "no key is left: key 1 of 3 (fingerprint " in said
    assert "key 3 of 3" in said
    assert "60 rows waiting for another run" in said
    assert simulator.bill.totals.charged == 0
    assert max(asked_with(simulator).values()) <= 16  # the requests that were in flight
    assert "canary" not in str(bench.instance.all_logs(result.run_id))
