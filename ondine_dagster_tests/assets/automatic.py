"""A daemon in this process: evaluates schedule and sensors as Dagster's does, tick by tick.

The runs that they ask for are recorded in a real instance, and run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from ondine_dagster_tests.workbench import Bench

WATCH, FOLLOW_UP, SCHEDULE = "notes__watch", "notes__follow_up", "notes__schedule"


class Daemon:
    """Evaluates the automation of a bench; `restart` forgets what a process would."""

    def __init__(self, bench: Bench, definitions: dg.Definitions | None = None) -> None:
        """`definitions` are those of the whole project, where they are more than the bench's."""
        self._bench = bench
        self._whole = definitions
        self._cursors: dict[str, str | None] = {}
        self._run_keys: set[str] = set()
        self.skipped = ""  # why the last tick asked for nothing
        self.restart()

    def restart(self) -> None:
        """Load the definitions again, as after a restart or a change of the declaration."""
        self._repository = (self._whole or self._bench.definitions).get_repository_def()

    def asks(self, sensor: str) -> Sequence[dg.RunRequest]:
        """Evaluate a sensor; return the runs it asks for, without those it asked for before."""
        context = dg.build_sensor_context(
            instance=self._bench.instance,
            cursor=self._cursors.get(sensor),
            repository_def=self._repository,
        )
        found = self._repository.get_sensor_def(sensor).evaluate_tick(context)
        self._cursors[sensor] = found.cursor
        self.skipped = found.skip_message or ""
        asked = [one for one in found.run_requests or () if one.run_key not in self._run_keys]
        self._run_keys.update(one.run_key for one in asked if one.run_key)
        return asked

    def asks_at(self, time: datetime) -> Sequence[dg.RunRequest]:
        """Evaluate the schedule at a tick; return the runs it asks for."""
        context = dg.build_schedule_context(
            instance=self._bench.instance, scheduled_execution_time=time
        )
        found = self._repository.get_schedule_def(SCHEDULE).evaluate_tick(context)
        self.skipped = found.skip_message or ""
        return found.run_requests or ()

    def run(self, requests: Sequence[dg.RunRequest], job: str) -> list[dg.DagsterRun]:
        """Run what was asked for, one after the other; return the runs as they ended."""
        return [
            self._repository.get_job(job)
            .execute_in_process(
                instance=self._bench.instance,
                asset_selection=request.asset_selection and list(request.asset_selection),
                tags=request.tags,
                raise_on_error=False,
            )
            .dagster_run
            for request in requests
        ]

    def snapshot(self, requests: Sequence[dg.RunRequest]) -> list[dg.DagsterRun]:
        """Run the snapshots that were asked for."""
        return self.run(requests, "notes__snapshot")

    def follow(self) -> list[dg.DagsterRun]:
        """Evaluate the follow-up sensor and run what it asks for."""
        return self.run(self.asks(FOLLOW_UP), "notes__label")


def ranges(runs: Sequence[dg.DagsterRun]) -> list[tuple[str, str]]:
    """Return the partitions of runs: the first and the last of each."""
    first, last = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
    return [(run.tags[first], run.tags[last]) for run in runs if first in run.tags]
