"""An observer of the user's own hears of everything, and whatever it does changes nothing."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from ondine_dagster import (
    AttemptEnded,
    Event,
    PartitionFinished,
    RequestSent,
    RowEnded,
    RunEnded,
    RunStarted,
)
from ondine_dagster.assets.monitoring import signals
from ondine_dagster.assets.monitoring.observer import observers_of
from ondine_dagster.errors import OndineError
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import REJECTED, RESULTS, Bench, MakeBench, numbered

_MODULE = __name__.replace(".", "_") + "_observers"
_SOURCE = """
import threading
seen, gate = [], threading.Event()

class Good:
    def on_event(self, event):
        seen.append(event)

class Other(Good):
    heard = []
    def on_event(self, event):
        self.heard.append(event)

class Raises:
    def on_event(self, event):
        raise ValueError("mine")

class Leaves:
    def on_event(self, event):
        raise SystemExit("anna@example.com")

class Hangs:
    def on_event(self, event):
        gate.wait()

class CannotBeMade:
    def __init__(self):
        raise RuntimeError("no")
    def on_event(self, event):
        pass

class LeavesAtOnce(Raises):
    def __init__(self):
        raise SystemExit(3)

class Deaf:
    pass

def a_function():
    return Good()
"""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Put a module with observers beside the declaration; those that hang are let go at the end."""
    from importlib import import_module

    (tmp_path / f"{_MODULE}.py").write_text(_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, _MODULE, raising=False)
    module = import_module(_MODULE)
    yield module.gate
    module.gate.set()


def observe(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Event]:
    monkeypatch.setenv("ONDINE_OBSERVER", f"{_MODULE}:{name}")
    seen: list[Event] = sys.modules[_MODULE].seen
    return seen


def warnings(bench: Bench, run_id: str) -> list[str]:
    logged = bench.instance.all_logs(run_id)
    return [one.user_message for one in logged if "the observer" in one.user_message]


@pytest.mark.usefixtures("gate")
def test_an_observer_that_is_declared_and_one_of_all_datasets_hear_of_everything(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = numbered(6)
    rows[1]["text"] += " [[fault=429 times=1 retry_after=0]]"
    rows[2]["text"] = "[[fault=refusal]] row"
    bench = make_bench(rows, partitions={"rows": 3}, observer=f"{_MODULE}:Other")
    bench.snapshot()
    seen = observe(monkeypatch, "Good")
    run = bench.run()
    assert sys.modules[_MODULE].Other.heard == seen
    assert Counter(type(one) for one in seen) == {
        RunStarted: 1,
        RequestSent: 7,
        AttemptEnded: 7,
        RowEnded: 6,
        PartitionFinished: 2,
        RunEnded: 1,
    }
    assert isinstance(seen[0], RunStarted) and (seen[0].partitions, seen[0].rows) == (2, 6)
    assert {(one.run_id, one.dataset) for one in seen} == {(run.run_id, "notes")}
    ended = seen[-1]
    assert isinstance(ended, RunEnded) and ended.error is None
    paid = sum(one.cost_usd or 0 for one in seen if isinstance(one, AttemptEnded))
    assert paid == ended.cost_usd == sum(one.cost_usd for one in seen if isinstance(one, RowEnded))
    assert ended.requests == 7
    outcomes = {one.row_key: (one.outcome, one.code) for one in seen if isinstance(one, RowEnded)}
    assert outcomes == {row["id"]: ("ok", None) for row in rows} | {"r2": ("rejected", "refused")}
    attempts = [one for one in seen if isinstance(one, AttemptEnded)]
    of_r1 = [(one.rows[0].attempt, one.code) for one in attempts if one.rows[0].row_key == "r1"]
    assert of_r1 == [(1, "rate_limited"), (2, None)]
    ids = {row.id.hex() for row in bench.attempts("id")}
    assert {one.request for one in attempts} == ids
    with pytest.raises(FrozenInstanceError):
        ended.rows = 0  # type: ignore[misc]
    assert warnings(bench, run.run_id) == []


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "raised at 13 events, first ValueError: mine"),
        ("Leaves", "raised at 13 events, first SystemExit: [EMAIL]"),
        ("Hangs", "is too slow: 13 events did not reach it"),
    ],
)
def test_an_observer_that_raises_or_hangs_changes_nothing_and_is_reported_once(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    simulator: Simulator,
    name: str,
    said: str,
) -> None:
    monkeypatch.setattr(signals, "END_SECONDS", 0.3 if name == "Hangs" else 30.0)
    bench = make_bench(numbered(3), partitions={"rows": 2})
    bench.snapshot()
    observe(monkeypatch, name)
    run = bench.run()
    assert run.success
    assert simulator.bill.totals.charged == 3
    assert [row["response"] for row in bench.rows(RESULTS)] == ["t0", "t1", "t2"]
    assert bench.rows(REJECTED) == []
    assert warnings(bench, run.run_id) == [f"notes: the observer {name} {said}"]


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{_MODULE}:Missing", "has no class Missing"),
        (f"{_MODULE}:a_function", "a_function is no class"),
        (f"{_MODULE}:Deaf", r"has no method on_event\(self, event\)"),
        ("nowhere_at_all:Good", "there is no module nowhere_at_all"),
    ],
)
def test_what_is_no_observer_is_refused_before_anything_is_paid(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    with pytest.raises(OndineError, match=f"defs.yaml: observer.*{said}"):
        make_bench(numbered(1), observer=path)
    pipeline = make_bench(numbered(1)).pipeline
    monkeypatch.setenv("ONDINE_OBSERVER", path)
    with pytest.raises(OndineError, match=f"ONDINE_OBSERVER.*{said}"):
        observers_of(pipeline)


@pytest.mark.usefixtures("gate")
def test_an_observer_that_both_name_is_told_once_and_one_that_cannot_be_made_is_refused(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(numbered(1), observer=f"{_MODULE}:Good")
    observe(monkeypatch, "Good")
    assert [type(one).__name__ for one in observers_of(bench.pipeline)] == ["Good"]
    observe(monkeypatch, "CannotBeMade")
    with pytest.raises(OndineError, match=r"CannotBeMade\(\) cannot be made: RuntimeError: no"):
        observers_of(bench.pipeline)
    observe(monkeypatch, "LeavesAtOnce")
    with pytest.raises(OndineError, match=r"LeavesAtOnce\(\) cannot be made: SystemExit: 3"):
        observers_of(bench.pipeline)
    monkeypatch.setenv("ONDINE_OBSERVER", "Good")
    with pytest.raises(OndineError, match="must be module and class, as my_module:MyObserver"):
        observers_of(bench.pipeline)
