"""What is lost and what is not: interrupts in the middle of a step, deleted files."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import REJECTED, RESULTS, Bench, MakeBench, numbered

ROWS = 60


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    bench = make_bench(numbered(ROWS), limits={"concurrency": 8})
    bench.snapshot()
    return bench


@contextmanager
def interrupted_at(simulator: Simulator, charged: int, number: int) -> Iterator[None]:
    """Send this process a signal when the provider has charged that many requests.

    Their replies are held back until the signal has been sent, so that requests are in flight.
    """
    sent = threading.Event()

    def interrupt() -> None:
        if simulator.bill.wait_for(lambda totals: totals.charged >= charged):
            simulator.hold()
            os.kill(os.getpid(), number)
            sent.set()
            # the run stops sending within that time; what is in flight may end then
            threading.Timer(2.0, simulator.release).start()

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    yield
    waiting.join()
    assert sent.is_set()


@pytest.mark.behaviour("A-30")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_in_the_middle_of_a_step_drains_and_repeats_nothing(
    bench: Bench, simulator: Simulator, number: int
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=30)
    with interrupted_at(simulator, 20, number), pytest.raises(DagsterExecutionInterruptedError):
        bench.run()
    bill = simulator.bill.totals
    assert 20 <= bill.charged < ROWS
    assert bill.answered == bill.charged, "what was in flight was waited for"
    # released: reserved just when the interrupt came, and not sent any more
    assert {attempt.state for attempt in bench.attempts()} <= {"settled", "released"}

    bench.run()
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (ROWS, 0)
    assert [row["response"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(ROWS)]
    assert bench.contradictions() == []


@pytest.mark.behaviour("E-8")
def test_a_run_leaves_no_thread_and_no_file_descriptor_behind(
    bench: Bench, simulator: Simulator
) -> None:
    def count() -> tuple[set[str], int]:
        names = {thread.name for thread in threading.enumerate()}
        return names, len(os.listdir("/proc/self/fd"))

    bench.run("rows-00000")  # opens what stays open: the ledger, Dagster's storage
    close_ledger(bench.data / "ledger.sqlite")
    before = count()
    for key in bench.partitions():
        bench.run(key)
    close_ledger(bench.data / "ledger.sqlite")
    # the simulator is in this process as well, and closes its connections when ours are closed
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 0)
    after = count()
    assert after[0] <= before[0]
    assert after[1] <= before[1]


@pytest.mark.behaviour("B-10")
def test_a_lost_lake_is_rebuilt_from_what_was_paid(bench: Bench, simulator: Simulator) -> None:
    bench.run()
    before, paid = bench.rows(RESULTS), simulator.bill.totals
    shutil.rmtree(bench.data / "lake")
    assert bench.run_missing() == bench.partitions()
    assert simulator.bill.totals == paid
    answers = [(row["_row_key"], row["response"]) for row in bench.rows(RESULTS)]
    assert answers == [(row["_row_key"], row["response"]) for row in before]


@pytest.mark.behaviour("B-10")
def test_one_lost_file_makes_its_partition_missing_and_costs_nothing(
    bench: Bench, simulator: Simulator
) -> None:
    bench.run()
    paid = simulator.bill.totals
    bench.lake.path("notes", REJECTED, "rows-00003").unlink()
    assert bench.run_missing() == ["rows-00003"]
    assert simulator.bill.totals == paid
    assert set(bench.states().values()) == {"done"}


@pytest.mark.behaviour("B-10")
def test_a_lost_data_folder_is_made_again_and_everything_is_asked_again(
    bench: Bench, simulator: Simulator
) -> None:
    bench.run()
    close_ledger(bench.data / "ledger.sqlite")
    shutil.rmtree(bench.data)
    bench.run_missing()
    assert simulator.bill.totals.charged == 2 * ROWS
    assert [row["response"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(ROWS)]


@pytest.mark.behaviour("E-6")
@pytest.mark.behaviour("E-6b")
def test_a_mistake_of_ours_fails_the_step_and_keeps_what_was_paid(
    bench: Bench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(bench.pipeline.reader).read
    seen = 0

    def forgetful(self: object, *told: object) -> object:
        nonlocal seen
        seen += 1
        if seen > 30:
            raise ZeroDivisionError("a mistake of ours")
        return read(self, *told)  # type: ignore[arg-type]

    monkeypatch.setattr(type(bench.pipeline.reader), "read", forgetful)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        bench.run()
    monkeypatch.undo()
    bench.run()
    bill = simulator.bill.totals
    assert (bill.charged, bill.repeats) == (ROWS, 0)
    assert bench.table(RESULTS).num_rows == ROWS


@pytest.mark.behaviour("E-6")
def test_a_row_without_an_outcome_is_a_crash_and_never_a_success(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ondine_dagster.assets import partition_files

    append = partition_files.PartitionFiles.append

    def lossy(self: partition_files.PartitionFiles, outcomes: list[Any], keys: list[Any]) -> None:
        append(self, outcomes[:-1], keys[:-1])

    monkeypatch.setattr(partition_files.PartitionFiles, "append", lossy)
    with pytest.raises(RuntimeError, match="rows have no outcome"):
        bench.run("rows-00000")
    assert not bench.lake.exists("notes", RESULTS, "rows-00000")
