"""Every limit of a declaration changes what a run does (E-4)."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.spec.changes import CHANGES
from ondine_dagster_tests.workbench import REJECTED, RESULTS, MakeBench, numbered

Look = Callable[[MakeBench, Simulator, dict[str, Any]], Any]


def _peak(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many requests were in flight at most: replies take long enough to meet."""
    simulator.settings = replace(simulator.settings, latency_ms=40)
    make_bench(numbered(8), limits=limits).run_missing()
    return simulator.bill.totals.max_in_flight


def _requests_for_an_error(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    bench = make_bench([{"id": "a", "text": "[[fault=500]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.requests


def _requests_of_unknown_outcome(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    bench = make_bench([{"id": "a", "text": "[[fault=reset_after]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.charged


def _patience(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> str:
    limits = {"max_attempts": 1, **limits}
    bench = make_bench([{"id": "a", "text": "[[fault=stall]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    (row,) = bench.rows(REJECTED)
    return str(row["_error_message"])


def _unknown_after_a_stop(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    """Interrupt a run whose replies come when it has ended, or 3 s after the interrupt."""
    simulator.hold()
    bench = make_bench(numbered(4), limits=limits)
    bench.snapshot()
    ended = threading.Event()

    def interrupt() -> None:
        if simulator.bill.wait_for(lambda totals: totals.charged == 4):
            os.kill(os.getpid(), signal.SIGINT)
        ended.wait(3)
        simulator.release()

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(DagsterExecutionInterruptedError):
        bench.run()
    ended.set()
    waiting.join()
    return len(bench.attempts(where="state = 'unknown'"))


def _answers_of_four(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many of four rows were answered in two runs; the others wait."""
    bench = make_bench(numbered(4), limits=limits)
    bench.snapshot()
    for _ in range(2):
        bench.run(raise_on_error=False)
    return simulator.bill.totals.charged


def _answers_of_no_use(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many rejected answers are paid before the run stops."""
    fields = {"mark": {"type": "string", "accept": ["fine"]}}
    bench = make_bench(numbered(12), limits=limits, output={"fields": fields})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.charged


def _answers_within_a_budget(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    (budget,) = limits.values()
    return _answers_of_four(make_bench, simulator, {"budgets": [{"per": "total", **budget}]})


def _warnings(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how often a run warned of a budget of which it used a half."""
    budgets = [{"requests": 8, "per": "total"}]
    bench = make_bench(numbered(4), limits={"budgets": budgets, **limits})
    bench.snapshot()
    entries = bench.instance.all_logs(bench.run().run_id)
    return sum(entry.level == logging.WARNING for entry in entries)


def _sent_apart(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> bool:
    """Return whether the second of two requests waited for half a second or more.

    Replies take longer: the first one tells that fewer tokens were used than it was feared.
    """
    simulator.settings = replace(simulator.settings, latency_ms=800)
    bench = make_bench(numbered(2), limits=limits)
    bench.run_missing()
    ((apart_ms,),) = bench.attempts("max(t_open) - min(t_open)")
    return bool(apart_ms >= 500)


def _survives_an_outage(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> bool:
    """Return whether a run goes on after an outage that is over 2 s after the tenth failure."""
    simulator.outage()
    bench = make_bench(numbered(12), limits={"max_attempts": 20, **limits})
    bench.snapshot()

    def recover() -> None:
        if simulator.bill.wait_for(lambda totals: totals.requests >= 10):
            time.sleep(2)
        simulator.recover()

    recovering = threading.Thread(target=recover)
    recovering.start()
    success = bench.run(raise_on_error=False).success
    recovering.join()
    return success


def _looked_up(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how often a run looked models up."""
    make_bench(numbered(2), limits=limits).run_missing()
    return simulator.bill.totals.looked_up


def _is_red(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> bool:
    """Return whether a partition fails of whose ten rows two are rejected."""
    rows = numbered(8) + numbered(2, "[[fault=refusal]] {n}", first=8)
    bench = make_bench(rows, limits=limits)
    bench.snapshot()
    return not bench.run(raise_on_error=False).success


SEEN_IN_RUNS: Mapping[str, tuple[Look, Any, Any, tuple[Any, Any]]] = {
    "budget_usd": (_answers_of_four, 0, 1, (0, 4)),
    "budgets.usd": (_answers_within_a_budget, {"usd": 0}, {"usd": 1}, (0, 4)),
    "budgets.requests": (_answers_within_a_budget, {"requests": 1}, {"requests": 3}, (1, 3)),
    "budgets.tokens": (_answers_within_a_budget, {"tokens": 0}, {"tokens": 10**6}, (0, 4)),
    "budgets.per": (
        _answers_within_a_budget,
        {"requests": 2, "per": "run"},
        {"requests": 2, "per": "total"},
        (4, 2),
    ),
    "warn_at_percent": (_warnings, [50], [60], (1, 0)),
    "requests_per_minute": (_sent_apart, None, 60, (False, True)),
    "tokens_per_minute": (_sent_apart, None, 10_000, (False, True)),
    "requests_per_day": (_answers_of_four, 1, 3, (1, 3)),
    "tokens_per_day": (_answers_of_four, 1, 10**6, (0, 4)),
    "max_outage_seconds": (_survives_an_outage, 0, 600, (False, True)),
    "concurrency": (_peak, 1, 2, (1, 2)),
    "max_attempts": (_requests_for_an_error, 1, 2, (1, 2)),
    "max_rejected": (_is_red, 0.1, 0.2, (True, False)),
    "max_unknown": (_requests_of_unknown_outcome, 0, 1, (1, 2)),
    "on_unknown": (_requests_of_unknown_outcome, "reask", "hold", (3, 1)),
    "timeout_seconds": (
        _patience,
        0.2,
        0.3,
        ("no complete reply within 0.2 s", "no complete reply within 0.3 s"),
    ),
    "drain_seconds": (_unknown_after_a_stop, 0, 30, (4, 0)),
    "preflight": (_looked_up, None, True, (0, 1)),
    "pilot_rows": (_answers_of_no_use, 2, 3, (2, 3)),
}


@pytest.mark.slow
@pytest.mark.behaviour("E-4")
@pytest.mark.parametrize("name", SEEN_IN_RUNS)
@pytest.mark.parametrize("which", [0, 1], ids=["before", "after"])
def test_a_limit_is_obeyed(
    name: str, which: int, make_bench: MakeBench, simulator: Simulator
) -> None:
    look, *values, expected = SEEN_IN_RUNS[name]
    assert look(make_bench, simulator, {name: values[which]}) == expected[which]


@pytest.mark.behaviour("A-13")
def test_the_concurrency_is_shared_by_all_partitions_reached_and_never_passed(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=30)
    bench = make_bench(numbered(60), partitions={"rows": 5}, limits={"concurrency": 12})
    simulator.hold()

    def release() -> None:
        simulator.bill.wait_for(lambda totals: totals.in_flight == 12)
        simulator.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    bench.run_missing()
    releasing.join()
    assert simulator.bill.totals.max_in_flight == 12
    assert simulator.bill.totals.connections <= 12
    assert bench.table(RESULTS).num_rows == 60


@pytest.mark.behaviour("E-4")
def test_every_limit_is_seen_in_a_run() -> None:
    declared = {path for path in CHANGES if path.startswith("limits.")}
    assert {f"limits.{name}" for name in SEEN_IN_RUNS} == declared
