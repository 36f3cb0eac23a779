"""Which started runs are dead: those whose process is gone, on this machine."""

from __future__ import annotations

import json
import os
import subprocess

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG

from ondine_dagster.assets.automation.run_launcher import CLI_TAG, is_dead
from ondine_dagster.assets.shared.processes import Process, began_at


def launched(
    instance: dg.DagsterInstance, pid: int | None, host: str = "localhost"
) -> dg.DagsterRun:
    tags = {GRPC_INFO_TAG: json.dumps({"host": host, "socket": "/tmp/x"})}
    run = instance.create_run_for_job(dg.job(name="one")(lambda: None), tags=tags)
    if pid is not None:
        message = f"Started process for run (pid: {pid})."
        instance.report_engine_event(message, run, EngineEventData.in_process(pid))
    return run


@pytest.fixture
def gone() -> int:
    """Return the id of a process that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_a_launched_run_is_dead_when_its_process_is_gone(
    instance: dg.DagsterInstance, gone: int
) -> None:
    assert is_dead(instance, launched(instance, gone))
    assert not is_dead(instance, launched(instance, os.getpid()))


def test_an_id_that_was_given_out_again_is_a_dead_process(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launched(instance, os.getpid())
    began = began_at(os.getpid())
    assert began is not None
    monkeypatch.setattr(
        "ondine_dagster.assets.automation.run_launcher.began_at", lambda pid: began + 10_000_000
    )
    assert is_dead(instance, run)


def test_nothing_is_known_of_other_machines_and_of_runs_that_have_not_begun(
    instance: dg.DagsterInstance, gone: int
) -> None:
    assert not is_dead(instance, launched(instance, gone, host="another-host"))
    assert not is_dead(instance, launched(instance, None))


def test_a_run_of_the_command_line_is_dead_when_its_own_process_is(
    instance: dg.DagsterInstance, gone: int
) -> None:
    here = Process.this()
    for process, dead in (here, False), (Process(here.host, gone, "then"), True):
        tags = {CLI_TAG: "run", **process.tags()}
        run = instance.create_run_for_job(dg.job(name="one")(lambda: None), tags=tags)
        assert is_dead(instance, run) is dead
