"""What a run logs of single rows, at which level, and that a slow log holds nobody up."""

from __future__ import annotations

import io
import json
import sys
import threading
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.monitoring import signals
from ondine_dagster.assets.shared import stage
from ondine_dagster.observe.log_lines import FIELDS
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import REJECTED, RESULTS, Bench, MakeBench, numbered

_BAD = "[[fault=refusal]] row {n}"
_TAG = "ondine/log_level"


def messages(bench: Bench, run_id: str) -> list[str]:
    return [one.user_message for one in bench.instance.all_logs(run_id)]


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.behaviour("A-25")
@pytest.mark.behaviour("A-27")
def test_every_line_of_a_row_names_its_row_and_the_level_is_that_of_the_run(
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ONDINE_LOG_FORMAT", "json")
    rows = numbered(6)
    rows[2]["text"] += " [[fault=429 times=1 retry_after=0]]"
    rows += numbered(8, _BAD, first=6)
    bench = make_bench(rows, partitions={"rows": 20})
    bench.snapshot()
    capsys.readouterr()
    run = bench.run(tags={_TAG: "debug"})
    everything = json_lines(capsys.readouterr().err)
    lines = [one for one in everything if "row_key" in one]
    for line in lines:
        assert (line["run_id"], line["dataset"]) == (run.run_id, "notes")
        assert line["partition"] == "rows-00000"
        assert line["attempt"] >= 1
    of_r2 = [
        (one["event"], one["attempt"], one.get("code")) for one in lines if one["row_key"] == "r2"
    ]
    assert of_r2 == [
        ("sent", 1, None),
        ("attempt_ended", 1, "rate_limited"),
        ("sent", 2, None),
        ("attempt_ended", 2, None),
        ("row_ended", 2, None),
    ]
    assert {one["row_key"] for one in lines if one["event"] == "row_ended"} == {
        row["id"] for row in rows
    }
    (whole,) = [one for one in everything if one.get("event") == "partition_finished"]
    assert (whole["partition"], whole["run_id"]) == ("rows-00000", run.run_id)
    assert (whole["results"], whole["rejected"], whole["requests"]) == (6, 8, 15)
    # the same lines are in Dagster's own log
    logged = messages(bench, run.run_id)
    assert {line["message"] for line in lines} <= set(logged)
    # without the tag: a few rejected rows are named, and no row that is good
    quiet = bench.run()
    said = [one for one in messages(bench, quiet.run_id) if ", row " in one]
    assert len(said) == signals.ROWS_OF_A_CODE
    assert all("rejected: refused" in one for one in said)
    assert "notes: 3 more rows rejected: refused. See rejected_rows." in messages(
        bench, quiet.run_id
    )
    loud = bench.run(tags={_TAG: "error"})
    assert not [one for one in messages(bench, loud.run_id) if one.startswith("notes")]
    # and Dagster still hears that the partition is done
    heard = {one.run_id for one in bench.events(RESULTS)}
    assert heard == {run.run_id, quiet.run_id, loud.run_id}


def test_a_level_that_does_not_exist_is_refused_before_anything_is_paid(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(2))
    bench.snapshot()
    with pytest.raises(Exception, match="ondine/log_level is 'loud'; it must be one of debug"):
        bench.run(tags={_TAG: "loud"})
    assert simulator.bill.totals.charged == 0


@pytest.mark.behaviour("A-25")
def test_lines_as_json_do_not_wait_for_dagsters_log(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDINE_LOG_FORMAT", "json")
    monkeypatch.setenv("ONDINE_LOG_LEVEL", "debug")
    monkeypatch.setattr(signals, "END_SECONDS", 1.0)
    gate, log = threading.Event(), dg.DagsterLogManager.log

    def stuck(self: dg.DagsterLogManager, level: int, msg: object, **rest: Any) -> None:
        if "row_key" in rest.get("extra", {}).get(FIELDS, {}):
            gate.wait()
        log(self, level, msg, **rest)

    bench = make_bench(numbered(30))
    bench.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(dg.DagsterLogManager, "log", stuck)
        run = bench.run()
        gate.set()
    lines = [one for one in json_lines(capsys.readouterr().err) if "row_key" in one]
    assert len({(one["row_key"], one["event"]) for one in lines}) == len(lines) == 3 * 30
    assert {one["run_id"] for one in lines} == {run.run_id}
    (said,) = [one for one in messages(bench, run.run_id) if "log is slow" in one]
    assert said.endswith("lines about rows are not in it. Standard error has all of them.")


class _Stuck(io.StringIO):
    """A standard error that does not take lines about rows until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        if '"row_key"' in text:
            self.gate.wait()
        return super().write(text)


@pytest.mark.behaviour("A-25")
def test_a_log_that_takes_nothing_holds_up_no_request(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    monkeypatch.setenv("ONDINE_LOG_FORMAT", "json")
    monkeypatch.setenv("ONDINE_LOG_LEVEL", "debug")
    monkeypatch.setattr(stage, "END_SECONDS", 0.1)
    stuck = _Stuck()
    bench = make_bench(numbered(30))
    bench.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stuck)
        run = bench.run()
    stuck.gate.set()
    assert simulator.bill.totals.charged == 30
    assert len(bench.rows(RESULTS)) == 30
    assert bench.rows(REJECTED) == []
    assert [one for one in messages(bench, run.run_id) if "could not be written to" in one]
