"""The sensor that sends what waits for a trace host: what runs could not send, or left behind.

One for each data folder, however many datasets it has; only where traces are wanted.
"""

from functools import cache
from pathlib import Path

import dagster as dg

from ondine_dagster.settings import TRACES, load_settings
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

_SECONDS_BETWEEN_TICKS = 30
# Dagster gives a tick 60 s; a post may take some of them after its time is over
_SECONDS_TO_SEND = 30.0


def traces_sensors(project_root: Path) -> list[dg.SensorDefinition]:
    """Return the sensor, where traces are wanted."""
    settings = load_settings(project_root)
    if settings.variable(TRACES) in (None, "off"):
        return []
    return [_sensor(settings.data_dir, project_root)]


@cache
def _sensor(data_dir: Path, project_root: Path) -> dg.SensorDefinition:
    """Return the same sensor to all datasets: definitions are merged by identity."""

    @dg.sensor(
        name="ondine_traces",
        minimum_interval_seconds=_SECONDS_BETWEEN_TICKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Sends the traces of requests that wait in the ledger of {data_dir}: those "
        "that a run could not send while the trace host was down. Launches no run.",
    )
    def ondine_traces(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(_tick(project_root))

    return ondine_traces


def _tick(project_root: Path) -> str:
    from ondine_dagster.assets.monitoring.traces import push_in_ledger
    from ondine_dagster.observe.destination import destination_of

    settings = load_settings(project_root)
    destination = destination_of(settings)
    if destination is None:
        return f"{TRACES} is not set any more."
    if not settings.ledger_path.exists():
        return "Nothing was run with this data yet."
    lake = Lake(settings.lake_root)
    done = push_in_ledger(settings.ledger_path, lake, destination, _SECONDS_TO_SEND)
    trouble = f" {done.trouble}." if done.trouble else ""
    return f"{plural(done.exported, 'request')} sent, {done.waiting:,} waiting.{trouble}"
