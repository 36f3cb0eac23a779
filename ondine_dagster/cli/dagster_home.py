"""The Dagster instance that runs of the command line are recorded in.

Owns the first opening of a DAGSTER_HOME (several processes at once, or one that is killed, would
break a fresh one for good) and the end of runs whose process died, which Dagster would show as
started for ever.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dagster as dg
import yaml

from ondine_dagster.assets.automation.run_launcher import CLI_TAG, WORDS_FOR_THE_DEAD
from ondine_dagster.assets.responses import CALL_TAG
from ondine_dagster.assets.shared.processes import Process
from ondine_dagster.cli.dagster_yaml import LAPTOP, template
from ondine_dagster.settings import Settings
from ondine_dagster.storage.atomic import ensure_folder, write_atomically

# Dagster would redirect standard output and error into files while a run goes on.
_OVERRIDES = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
# the folders below DAGSTER_HOME in which Dagster keeps its SQLite files
_DATABASES = ("history", "schedules")
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME, made under a lock where it is fresh."""
    home = settings.dagster_home
    ensure_folder(home)
    with open(home / ".ondine.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = home / "dagster.yaml"
        if home == settings.own_dagster_home and not config.exists():
            write_atomically(config, template(LAPTOP).encode())
        _make_databases(home)
        instance = _open(home)
    with instance:
        yield instance


def _make_databases(home: Path) -> None:
    """Give a fresh home its SQLite files, whole or not at all.

    Dagster fills a file in several steps, and never goes on with one that a kill left half done.
    """
    missing = [name for name in _DATABASES if not (home / name).exists()]
    config = home / "dagster.yaml"
    if not missing or (config.exists() and _names_a_storage(config)):
        return
    fresh = home / ".ondine.fresh"
    shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed here
    fresh.mkdir()
    _open(fresh).dispose()
    for name in missing:
        (fresh / name).rename(home / name)
    shutil.rmtree(fresh)


def _names_a_storage(config: Path) -> bool:
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    return any(str(name).endswith("storage") for name in settings)


def _open(home: Path) -> dg.DagsterInstance:
    instance = dg.DagsterInstance.local_temp(str(home), overrides=_OVERRIDES)
    # the storages are made when they are first used: now, under the lock
    instance.get_runs_count()
    instance.get_dynamic_partitions("")
    instance.all_instigator_state()
    return instance


def new_call_tags() -> Mapping[str, str]:
    """Return the tags of all runs of one call: whose they are, and what they have in common."""
    return {CLI_TAG: "run", **Process.this().tags(), CALL_TAG: str(uuid4())}


def fail_dead_runs(instance: dg.DagsterInstance) -> int:
    """Fail the runs of the command line whose process is dead; return how many there were."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags={CLI_TAG: "run"}))
    dead = [run for run in unfinished if Process.of(run.tags).is_dead()]
    for run in dead:
        instance.report_run_failed(run, WORDS_FOR_THE_DEAD)
    return len(dead)
