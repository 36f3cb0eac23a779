"""What follows a snapshot that schedule or sensor asked for: the runs that label, then the report.

Owns one tick of the follow-up sensor, and its cursor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

import dagster as dg

from ondine_dagster.assets.keys import asset_key, last_assets
from ondine_dagster.assets.responses import CALL_TAG
from ondine_dagster.assets.shared.at_work import UNFINISHED_RUNS, keys_at_work, keys_of
from ondine_dagster.assets.shared.next_step import DUE
from ondine_dagster.assets.shared.partition_counts import RESPONSES, TRIO
from ondine_dagster.assets.shared.partitions import known_keys, range_tags, ranges, runnable_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.run_tags import BY, DATASET, FOLLOWS, MISSING, THEN, WATCH
from ondine_dagster.assets.shared.status import dataset_status
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import PartitionInfo
from ondine_dagster.wording import plural

LABELLED = ("raw_rows", "prompts", *TRIO)
_ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
# A run that ends while the sensor looks may be recorded with an earlier time than one it saw.
_OVERLAP = timedelta(seconds=60)
# The sensor begins with the first start of Dagster; what ended before that is history.
_FIRST_LOOK = timedelta(hours=1)


@dataclass(slots=True)
class Cursor:
    """What the sensor remembers.

    `handled` are the runs that ended lately and were seen. `failed` are the partitions whose run
    failed without leaving files, each with its content then: a changed source runs the others.
    `report` is the run after which the report is due.
    """

    since: datetime
    handled: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    report: str = ""

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Return the cursor that Dagster kept; a fresh one where it kept none."""
        if not text:
            return cls(datetime.now(UTC) - _FIRST_LOOK)
        content = json.loads(text)
        return cls(**{**content, "since": datetime.fromisoformat(content["since"])})

    def text(self) -> str:
        """Return the cursor for Dagster to keep."""
        return json.dumps(
            {
                "since": self.since.isoformat(),
                "handled": self.handled,
                "failed": self.failed,
                "report": self.report,
            }
        )


class FollowUp:
    """One tick of the sensor."""

    def __init__(
        self,
        pipeline: Pipeline,
        lake: Lake,
        context: dg.SensorEvaluationContext,
    ) -> None:
        self._pipeline = pipeline
        self._lake = lake
        self._context = context
        self._known = known_keys(pipeline, context.instance)
        self.cursor = Cursor.read(context.cursor)

    def requests(self) -> list[dg.RunRequest]:
        """Return the runs to launch now."""
        ended = self._ended()
        for run in ended:
            if FOLLOWS in run.tags:
                self.cursor.report = run.run_id
                if run.status is not dg.DagsterRunStatus.SUCCESS:
                    self._remember_failed(run)
        taken = [run for run in ended if _is_followed(run)]
        requests = list(self._labelling(taken[-1])) if taken else []
        if taken and not requests:
            self.cursor.report = taken[-1].run_id
        if self.cursor.report and not requests and not self._still_labelling():
            requests = [self._report(self.cursor.report)]
            self.cursor.report = ""
        return requests

    def _ended(self) -> list[dg.DagsterRun]:
        """Return the runs of ours that ended since the last tick, oldest first."""
        cursor = self.cursor
        records = self._context.instance.get_run_records(
            dg.RunsFilter(
                tags={DATASET: self._pipeline.name},
                statuses=list(_ENDED),
                updated_after=cursor.since - _OVERLAP,
            ),
            order_by="update_timestamp",
            ascending=True,
        )
        ended = [record.dagster_run for record in records]
        new = [run for run in ended if run.run_id not in cursor.handled]
        cursor.handled = [run.run_id for run in ended]
        cursor.since = max([cursor.since, *(record.update_timestamp for record in records)])
        return new

    def _labelling(self, snapshot_run: dg.DagsterRun) -> Iterator[dg.RunRequest]:
        """Yield the runs for what is due, each of neighbours, as large as one may be."""
        due = self._due
        self.cursor.failed = failed = {
            key: content
            for key, content in self.cursor.failed.items()
            if key in due and due[key].content_hash == content
        }
        # What failed is no reason to try again when other rows have changed. A tick of the
        # schedule is one, and so is a person who runs the snapshot once more.
        changed_only = snapshot_run.tags.get(BY) == WATCH and not snapshot_run.parent_run_id
        left = set(failed) if changed_only else set()
        instance, repository = self._context.instance, self._context.repository_def
        assert repository is not None  # Dagster gives it to every sensor
        responses = asset_key(self._pipeline.name, RESPONSES)
        at_work = keys_at_work(instance, repository, responses, self._known)
        wanted = [key for key in due if key not in at_work and key not in left]
        self._context.log.info(
            f"{self._pipeline.name}: {plural(len(due), 'partition')} missing or changed, "
            f"{len(due.keys() & at_work)} of them at work already, {len(left)} failed with the "
            f"same rows before; {len(wanted)} to run."
        )
        most = self._pipeline.dataset.run_partitions
        for first, last in ranges(self._pipeline, instance, wanted, most):
            yield self._request(snapshot_run, first, last)

    def _request(self, snapshot_run: dg.DagsterRun, first: str, last: str) -> dg.RunRequest:
        name, run_id = self._pipeline.name, snapshot_run.run_id
        return dg.RunRequest(
            run_key=f"{name}:{run_id}:{first}:{last}",
            asset_selection=[asset_key(name, asset) for asset in LABELLED],
            tags={
                DATASET: name,
                FOLLOWS: run_id,
                CALL_TAG: run_id,  # one budget per run for all of them
                **range_tags(self._pipeline, first, last),
            },
        )

    def _report(self, after: str) -> dg.RunRequest:
        name = self._pipeline.name
        return dg.RunRequest(
            run_key=f"{name}:report:{after}",
            asset_selection=[asset_key(name, asset) for asset in last_assets(self._pipeline)],
        )

    def _still_labelling(self) -> bool:
        """Return whether runs that were launched here go on."""
        unfinished = self._context.instance.get_runs(
            dg.RunsFilter(tags={DATASET: self._pipeline.name}, statuses=list(UNFINISHED_RUNS))
        )
        return any(FOLLOWS in run.tags for run in unfinished)

    def _remember_failed(self, run: dg.DagsterRun) -> None:
        """Remember which partitions of a failed run have no files, and with which rows."""
        due = self._due
        for key in keys_of(run, self._known):
            if key in due:
                self.cursor.failed[key] = due[key].content_hash

    @cached_property
    def _due(self) -> dict[str, PartitionInfo]:
        """What is missing or changed and may run now, in Dagster's order."""
        snapshot = self._pipeline.snapshot(self._lake)
        status = dataset_status(self._pipeline, self._lake, snapshot)
        due = frozenset(status.in_state(*DUE))
        may_run = runnable_keys(self._pipeline, snapshot, self._context.instance)
        return {key: snapshot.by_key[key] for key in may_run if key in due}


def _is_followed(run: dg.DagsterRun) -> bool:
    return run.tags.get(THEN) == MISSING and run.status is dg.DagsterRunStatus.SUCCESS
