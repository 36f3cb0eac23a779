"""What `doctor` says about Dagster itself: its settings, its daemon, the project's executor.

Nothing here stops a run; each finding names what may happen, and the line to write. Opens Dagster's
records only where there are some, and calls nobody.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from ondine_dagster.assets.automation.run_launcher import LocalRunLauncher, is_dead
from ondine_dagster.cli.dagster_home import UNFINISHED, open_instance
from ondine_dagster.cli.findings import Finding, Level
from ondine_dagster.settings import Settings, find_project_root
from ondine_dagster.wording import plural

_HOME, _QUEUE, _RETRIES, _DEAD, _DAEMON, _EXECUTOR = (
    "DAGSTER_HOME",
    "run queue",
    "run retries",
    "dead runs",
    "daemon",
    "executor",
)
_WHOLE_FILE = "`ondine-dagster dagster-yaml laptop` (or server) prints a whole dagster.yaml"
_LIMIT = "concurrency: {runs: {max_concurrent_runs: 4}}"
_RETRY = "run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}"
_MONITOR = (
    f"run_monitoring: {{enabled: true}} and run_launcher: {{module: {LocalRunLauncher.__module__}, "
    f"class: {LocalRunLauncher.__name__}}}"
)
_EXECUTOR_LINE = "dg.Definitions(..., executor=dg.in_process_executor)"
_LIVE_SECONDS = 120.0  # daemons say every 30 s that they live


def dagster_findings(settings: Settings, start: Path) -> Iterator[Finding]:
    """Yield what there is to say; the project is looked for from `start` upwards."""
    if not settings.dagster_home_is_set:
        yield Finding(
            Level.LOOK,
            _HOME,
            "not set: `dagster dev` forgets its runs when it ends, and does not see those of the "
            f"command line. Write: export DAGSTER_HOME={settings.dagster_home}",
        )
    path = settings.dagster_home / "dagster.yaml"
    if not path.exists() and settings.dagster_home == settings.own_dagster_home:
        yield Finding(Level.GOOD, _QUEUE, f"{path} is made by the first run, for a laptop")
    else:
        yield from _settings(path)
    yield from _records(settings)
    if (root := find_project_root(start)) is not None:
        yield from _executor(root)


def _settings(path: Path) -> Iterator[Finding]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        yield Finding(Level.BAD, "dagster.yaml", f"{path} cannot be read: {error}")
        return
    config: Mapping[str, Any] = found if isinstance(found, dict) else {}
    yield _queue(config, path)
    yield _retries(config, path)
    yield _monitoring(config, path)


def _at(config: Mapping[str, Any], *path: str) -> Any:
    """Return what is written at a place, None where nothing is."""
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _queue(config: Mapping[str, Any], path: Path) -> Finding:
    if "DefaultRunCoordinator" in str(_at(config, "run_coordinator", "class")):
        return Finding(
            Level.LOOK,
            _QUEUE,
            "there is none (DefaultRunCoordinator): a backfill of 200 partitions starts 200 "
            f"processes. In {path} take run_coordinator away and write: {_LIMIT}",
        )
    places = (
        ("concurrency", "runs"),
        ("run_queue",),
        ("run_coordinator", "config"),
    )
    limits = [_at(config, *place, "max_concurrent_runs") for place in places]
    limit = next((one for one in limits if one is not None), None)
    if limit is None or limit == -1:
        what = "no limit is written" if limit is None else "the limit is switched off"
        return Finding(
            Level.LOOK,
            _QUEUE,
            f"{what}: each run is a process, and all share the provider's limits. In {path} "
            f"write: {_LIMIT}. {_WHOLE_FILE}",
        )
    return Finding(Level.GOOD, _QUEUE, f"at most {limit} runs at once")


def _retries(config: Mapping[str, Any], path: Path) -> Finding:
    if not _at(config, "run_retries", "enabled"):
        return Finding(
            Level.LOOK,
            _RETRIES,
            f"off: a run whose process is killed is not started again. In {path} write: {_RETRY}",
        )
    if _at(config, "run_retries", "retry_on_asset_or_op_failure") is not False:
        return Finding(
            Level.LOOK,
            _RETRIES,
            "also after the failure of an asset: a run that is red for a reason (budget, key, "
            f"rejected rows) is started again for nothing. In {path} write: {_RETRY}",
        )
    return Finding(Level.GOOD, _RETRIES, "of killed runs only")


def _monitoring(config: Mapping[str, Any], path: Path) -> Finding:
    launcher = _at(config, "run_launcher", "class") or "DefaultRunLauncher"
    if _at(config, "run_monitoring", "enabled") and launcher != "DefaultRunLauncher":
        return Finding(Level.GOOD, _DEAD, f"are found ({launcher})")
    return Finding(
        Level.LOOK,
        _DEAD,
        "are not found: a run that died with its machine is shown as started for ever, and keeps "
        f"its place in the queue. In {path} write: {_MONITOR}",
    )


def _records(settings: Settings) -> Iterator[Finding]:
    if not (settings.dagster_home / "schedules").exists():
        yield Finding(Level.LOOK, _DAEMON, _no_daemon("none has run yet", settings))
        return
    with open_instance(settings) as instance:
        beats = instance.get_daemon_heartbeats().values()
        last = max((beat.timestamp for beat in beats), default=None)
        dead = sum(is_dead(instance, run) for run in _unfinished(instance))
    if last is None:
        yield Finding(Level.LOOK, _DAEMON, _no_daemon("none has run yet", settings))
    elif (age := time.time() - last) > _LIVE_SECONDS:
        yield Finding(
            Level.LOOK, _DAEMON, _no_daemon(f"last seen {age / 60:.0f} minutes ago", settings)
        )
    else:
        yield Finding(Level.GOOD, _DAEMON, f"seen {age:.0f} s ago")
    if dead:
        yield Finding(
            Level.LOOK,
            _DEAD,
            f"{plural(dead, 'run')} shown as started whose process is dead. The next "
            "`ondine-dagster run` says so of its own; terminate others in the UI (Runs)",
        )


def _unfinished(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)))


def _no_daemon(why: str, settings: Settings) -> str:
    return (
        f"{why}: backfills, schedules, sensors and queued runs wait for one (`ondine-dagster run` "
        f"does not). Run `dagster dev` with DAGSTER_HOME={settings.dagster_home}"
    )


def _executor(root: Path) -> Iterator[Finding]:
    """Look at the executor of the runs that are launched in the page."""
    from dagster._core.definitions.reconstruct import repository_def_from_target_def
    from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

    module = _module_of(root)
    if module is None:
        return
    try:
        targets = loadable_targets_from_python_module(module, str(root))
        repository = repository_def_from_target_def(targets[0].target_definition)
        assert repository is not None
        jobs = repository.get_all_jobs()
    except (dg.DagsterError, ImportError, OSError, ValueError) as error:
        yield Finding(Level.BAD, "definitions", f"{module} cannot be loaded: {error}")
        return
    names = {job.executor_def.name for job in jobs if job.name.startswith("__ASSET_JOB")}
    if "multi_or_in_process_executor" in names:
        yield Finding(
            Level.LOOK,
            _EXECUTOR,
            "Dagster's default starts a process for each stage of a run, which takes 1.5 s each. "
            f"In {module} write: {_EXECUTOR_LINE}",
        )
    elif names:
        yield Finding(Level.GOOD, _EXECUTOR, ", ".join(sorted(names)))


def _module_of(root: Path) -> str | None:
    """Return the module with the project's definitions, as its pyproject.toml says."""
    tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
    named = _at(tool, "dagster", "module_name")
    named = named or _at(tool, "dg", "project", "code_location_target_module")
    package = _at(tool, "dg", "project", "root_module")
    return str(named) if named else f"{package}.definitions" if package else None
