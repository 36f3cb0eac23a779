"""Several processes on one ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import MakeHarness
from ondine_dagster_tests.engine.harness import questions

ROOT = Path(__file__).parents[2]
COUNT = 200


@contextmanager
def process(
    folder: Path, base_url: str, rows_per_request: int = 1
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ondine_dagster_tests.engine.same_questions"]
    started = subprocess.Popen(
        [*command, str(folder), base_url, str(COUNT), str(rows_per_request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with started:
        yield started
        if started.poll() is None:
            started.kill()


def begin(one: subprocess.Popen[str]) -> None:
    assert one.stdin is not None
    one.stdin.write("go\n")
    one.stdin.flush()


def wait_until_ready(one: subprocess.Popen[str]) -> None:
    assert one.stdout is not None
    assert one.stdout.readline() == "ready\n"


@pytest.mark.behaviour("E-1c")
def test_eight_processes_with_the_same_questions_pay_each_once(
    make_harness: MakeHarness, simulator_factory: type[Simulator], tmp_path: Path
) -> None:
    simulator = simulator_factory(latency_ms=5)
    harness = make_harness(simulator.base_url, "shared")
    with ExitStack() as stack:
        folder = tmp_path / "shared"
        running = [stack.enter_context(process(folder, simulator.base_url)) for _ in range(8)]
        for one in running:
            wait_until_ready(one)
        for one in running:
            begin(one)
        found = [json.loads(one.communicate(timeout=120)[0]) for one in running]
    assert [one.returncode for one in running] == [0] * 8
    assert all(one["texts"] == [str(n) for n in range(COUNT)] for one in found)
    totals = simulator.bill.totals
    assert (totals.charged, totals.repeats) == (COUNT, 0)
    assert sum(one["requests"] for one in found) == COUNT
    assert sum(one["requests"] > 0 for one in found) > 1  # they did compete
    assert harness.states() == {"settled": COUNT}
    assert harness.problems() == []


@pytest.mark.behaviour("A-30")
def test_what_a_killed_process_was_asking_is_asked_by_those_who_wait_for_it(
    make_harness: MakeHarness, simulator: Simulator, tmp_path: Path
) -> None:
    harness = make_harness(simulator.base_url, "shared")
    simulator.hold()
    with process(tmp_path / "shared", simulator.base_url) as victim:
        wait_until_ready(victim)
        begin(victim)
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 8)
        with process(tmp_path / "shared", simulator.base_url) as heir:
            wait_until_ready(heir)
            begin(heir)
            assert simulator.bill.wait_for(lambda totals: totals.in_flight == 16)
            victim.kill()
            victim.wait(10)
            simulator.release()
            found = json.loads(heir.communicate(timeout=60)[0])
    assert found["texts"] == [str(n) for n in range(COUNT)]
    totals = simulator.bill.totals
    assert totals.repeats == 8
    assert harness.states() == {"settled": COUNT, "unknown": 8}
    assert [row.text for row in harness.run(questions(COUNT)).rows] == found["texts"]
    assert harness.problems() == []
