"""Jobs, schedule and sensors of one dataset: what a person launches or switches on in Dagster.

A schedule or the watch sensor launches one run that takes the snapshot, as the partitions of a run
are fixed when it is launched; the follow-up sensor then launches the runs that label.
"""

from datetime import datetime
from typing import Any

import dagster as dg
from dagster._time import get_current_datetime
from dagster._utils.schedules import schedule_execution_time_iterator

from ondine_dagster.assets.audit.replay import MODE_TAG, Mode, replayed_assets
from ondine_dagster.assets.audit.verify_sample import DEFAULT_ROWS, ROWS_TAG
from ondine_dagster.assets.automation import watch
from ondine_dagster.assets.automation.follow_up import LABELLED, FollowUp
from ondine_dagster.assets.automation.traces_sensor import traces_sensors
from ondine_dagster.assets.automation.watch import look_at
from ondine_dagster.assets.keys import asset_key, last_assets, upstream_key
from ondine_dagster.assets.retry import RETRY_TAG
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.run_tags import BY, DATASET, MISSING, SCHEDULE, THEN, WATCH
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.asking_again import ALL
from ondine_dagster.spec import Schedule
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.located import NotWatchable
from ondine_dagster.storage.sources import SourceNotFound

_SECONDS_BETWEEN_TICKS = 30
_SECONDS_TO_FOLLOW = 15


def build_automation(pipeline: Pipeline) -> dg.Definitions:
    """Return jobs, sensors, and the schedule where one is declared."""
    snapshot, label = _snapshot_job(pipeline), _label_job(pipeline)
    declared = pipeline.dataset.schedule
    return dg.Definitions(
        jobs=[snapshot, label, _retry_job(pipeline), _replay_job(pipeline), _verify_job(pipeline)],
        schedules=[] if declared is None else [_schedule(pipeline, snapshot, declared)],
        sensors=[
            _follow_up(pipeline, label),
            _watch(pipeline, snapshot),
            *traces_sensors(pipeline.project_root),
        ],
    )


def _snapshot_job(pipeline: Pipeline) -> Any:
    name = pipeline.name
    return dg.define_asset_job(
        f"{name}__snapshot",
        selection=[asset_key(name, "snapshot")],
        description=f"Step 1 of {name}: reads the source and registers its partitions. It asks "
        f"nobody and costs nothing. Step 2 is the job {name}__label.",
        executor_def=dg.in_process_executor,
    )


def _label_job(pipeline: Pipeline) -> Any:
    name = pipeline.name
    return dg.define_asset_job(
        f"{name}__label",
        selection=[asset_key(name, asset) for asset in (*LABELLED, *last_assets(pipeline))],
        description=f"Step 2 of {name}: asks the model about the rows of the partitions that you "
        "choose, then writes the report and what is exported. It costs money; answers that were "
        "paid before are not paid again.",
        executor_def=dg.in_process_executor,
    )


def _retry_job(pipeline: Pipeline) -> Any:
    name = pipeline.name
    return dg.define_asset_job(
        f"{name}__retry_rejected",
        selection=[asset_key(name, asset) for asset in TRIO],
        description=f"Asks again for rejected rows of {name}, in the partitions that you choose. "
        f"It costs money. The tag `{RETRY_TAG}` says which: `{ALL}` that may succeed, or error "
        "classes and codes such as `capacity,refused`.",
        tags={RETRY_TAG: ALL},
        executor_def=dg.in_process_executor,
    )


def _verify_job(pipeline: Pipeline) -> Any:
    name = pipeline.name
    return dg.define_asset_job(
        f"{name}__verify",
        selection=[asset_key(name, asset) for asset in TRIO],
        description=f"Asks some rows of {name} again, in the partitions that you choose, and "
        "compares: the check `drift` of the results says how many differ. It costs money and "
        f"changes no table. The tag `{ROWS_TAG}` says how many rows.",
        tags={MODE_TAG: Mode.VERIFY.value, ROWS_TAG: str(DEFAULT_ROWS)},
        executor_def=dg.in_process_executor,
    )


def _replay_job(pipeline: Pipeline) -> Any:
    name = pipeline.name
    return dg.define_asset_job(
        f"{name}__replay",
        selection=[asset_key(name, asset) for asset in (*replayed_assets(pipeline), "report")],
        description=f"Makes {name} again, in the partitions that you choose, from what is "
        "recorded: no request is sent, and it costs nothing. It fails where a row has no "
        "recording, and names it.",
        tags={MODE_TAG: Mode.REPLAY.value},
        executor_def=dg.in_process_executor,
    )


def _schedule(pipeline: Pipeline, snapshot: Any, declared: Schedule) -> dg.ScheduleDefinition:
    name = pipeline.name

    @dg.schedule(
        name=f"{name}__schedule",
        job=snapshot,
        cron_schedule=declared.cron,
        execution_timezone=declared.timezone,
        description=f"Takes a snapshot of {name}; the sensor {name}__follow_up then runs what is "
        "missing or changed. Off until you switch it on, as it costs money.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        later = _later_tick(declared, tick)
        if later is not None:
            return dg.SkipReason(
                f"This tick of {tick:%Y-%m-%d %H:%M} is late: the one of {later:%Y-%m-%d %H:%M} "
                "is due as well, and does the work of both."
            )
        return dg.RunRequest(run_key=tick.isoformat(), tags=_tags(name, SCHEDULE))

    return schedule


def _later_tick(declared: Schedule, tick: datetime) -> datetime | None:
    """Return the tick after `tick`, if that is due already."""
    ticks = schedule_execution_time_iterator(tick.timestamp(), declared.cron, declared.timezone)
    later = next(time for time in ticks if time > tick)
    return later if later <= get_current_datetime() else None


def _tags(name: str, by: str) -> dict[str, str]:
    return {DATASET: name, THEN: MISSING, BY: by}


def _follow_up(pipeline: Pipeline, label: Any) -> dg.SensorDefinition:
    name = pipeline.name

    @dg.sensor(
        name=f"{name}__follow_up",
        job=label,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_SECONDS_TO_FOLLOW,
        description=f"Runs what is missing or changed after a snapshot that the schedule of {name} "
        f"or the sensor {name}__watch took, then the report. It does nothing by itself, and "
        "nothing after a snapshot that you took.",
    )
    def follow_up(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        tick = FollowUp(pipeline, Lake(pipeline.settings().lake_root), context)
        requests = tick.requests()
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "No snapshot to follow, and no report due.",
            cursor=tick.cursor.text(),
        )

    return follow_up


def _source_now(pipeline: Pipeline, instance: dg.DagsterInstance) -> watch.Source:
    """Return the state of the source; that of an upstream asset is its last materialization.

    Raises NotWatchable where nothing tells it, OndineError where nobody answers.
    """
    if pipeline.dataset.source.asset is not None:
        key = upstream_key(pipeline)
        assert key is not None
        last = instance.get_latest_materialization_event(key)
        return watch.Source() if last is None else watch.event(last.run_id, last.timestamp)
    try:
        return look_at(pipeline.source_pieces())
    except OndineError as error:
        if not isinstance(error, SourceNotFound) and pipeline.dataset.source.dataset is None:
            raise
        return watch.Source()


def _watch(pipeline: Pipeline, snapshot: Any) -> dg.SensorDefinition:
    name = pipeline.name

    @dg.sensor(
        name=f"{name}__watch",
        job=snapshot,
        minimum_interval_seconds=_SECONDS_BETWEEN_TICKS,
        description=f"Looks at the source of {name} every {_SECONDS_BETWEEN_TICKS} s, and runs "
        "what is missing or changed, now and whenever the source changes. Off until you switch it "
        "on, as it costs money.",
    )
    def watch_source(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            now = _source_now(pipeline, context.instance)
        except OndineError as error:  # a database that does not tell, or that does not answer
            if not isinstance(error, NotWatchable):
                context.log.warning(f"{name}: {error}")
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        found = watch.tick(watch.Cursor.read(context.cursor), now)
        if found.warning:
            context.log.warning(f"{name}: {found.reason}")
        if not found.take:
            return dg.SensorResult(skip_reason=found.reason, cursor=found.cursor.text())
        context.log.info(f"{name}: {found.reason}")
        request = dg.RunRequest(tags=_tags(name, WATCH))
        return dg.SensorResult(run_requests=[request], cursor=found.cursor.text())

    return watch_source
