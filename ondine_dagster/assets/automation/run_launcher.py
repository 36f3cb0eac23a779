"""A launcher for `dagster.yaml` that knows which runs of this machine are dead.

Dagster's own launcher starts each run as a process beside the code server. When that machine goes
down, or a run of the command line is killed, nobody reports the end: the run stays "started" for
ever, keeps its place in the queue, and is not retried. With `run_monitoring` switched on, the
daemon asks the launcher about every started run; this one looks whether the process is still there.
"""

from __future__ import annotations

import json
import re

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from ondine_dagster.assets.shared.processes import Process, began_at

CLI_TAG = "ondine/cli"  # on all runs of the command line
WORDS_FOR_THE_DEAD = (
    "Its process ended without a word (killed, or a crash). Run it again: answers that arrived are "
    "in the ledger and are not paid twice."
)
_PROCESS_EVENT = re.compile(r"Started process for run \(pid: (\d+)\)")
_HERE = ("localhost", "127.0.0.1", "::1")
# began_at is exact to a second or so
_CLOCK_SECONDS = 5.0


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's own launcher, for code servers on the daemon's machine; it finds dead runs."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return that the daemon may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return FAILED where the run's process has certainly ended, else RUNNING."""
        if is_dead(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, WORDS_FOR_THE_DEAD)
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether the process of a started run has certainly ended.

    Of processes on other machines, and of runs that have not said yet which is theirs, nothing is
    known.
    """
    if CLI_TAG in run.tags:
        return Process.of(run.tags).is_dead()
    if json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("host") not in _HERE:
        return False
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for event in reversed(logs):
        if found := _PROCESS_EVENT.search(event.message or event.user_message):
            began = began_at(int(found[1]))
            return began is None or began > event.timestamp + _CLOCK_SECONDS
    return False
