"""Dagster's settings: those that come with the package load, and doctor sees what is dangerous."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from dagster._core.instance import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from ondine_dagster.assets.automation.run_launcher import LocalRunLauncher
from ondine_dagster.cli.dagster_checks import dagster_findings
from ondine_dagster.cli.dagster_yaml import template
from ondine_dagster.cli.findings import Finding, Level
from ondine_dagster.settings import Settings
from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.end_to_end.projects import make_project

PLACES = ("laptop", "server")


def found(settings: Settings, start: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in dagster_findings(settings, start)}


def home(folder: Path, config: str) -> Settings:
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(config, encoding="utf-8")
    return Settings(folder / "data", folder / "home", dagster_home_is_set=True)


@pytest.mark.parametrize("place", PLACES)
def test_the_settings_load_limit_the_queue_and_please_doctor(
    person: Person, tmp_path: Path, place: str
) -> None:
    printed = person.types("dagster-yaml", place)
    assert printed.stdout == template(place)
    settings = home(tmp_path, printed.stdout)
    with DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert 0 < queue.max_concurrent_runs <= 10
        assert queue.tag_concurrency_limits
        assert isinstance(instance.run_launcher, LocalRunLauncher)
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
    good = [f.what for f in found(settings, tmp_path).values() if f.level is Level.GOOD]
    assert good == ["run queue", "run retries", "dead runs"]


def test_a_fresh_home_of_the_command_line_gets_the_settings_for_a_laptop(person: Person) -> None:
    before = found(person.settings, person.folder)
    assert before["run queue"].level is Level.GOOD
    assert before["DAGSTER_HOME"].found.endswith(f"DAGSTER_HOME={person.settings.dagster_home}")
    person.write(2)
    person.runs()
    config = person.settings.dagster_home / "dagster.yaml"
    assert config.read_text(encoding="utf-8") == template("laptop")


@pytest.mark.parametrize(
    ("config", "what", "line"),
    [
        ("{}", "run queue", "concurrency: {runs: {max_concurrent_runs: 4}}"),
        (
            "concurrency: {runs: {max_concurrent_runs: -1}}",
            "run queue",
            "the limit is switched off",
        ),
        (
            "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}",
            "run queue",
            "200 processes",
        ),
        ("{}", "run retries", "run_retries: {enabled: true"),
        ("run_retries: {enabled: true}", "run retries", "retry_on_asset_or_op_failure: false"),
        ("run_monitoring: {enabled: true}", "dead runs", "class: LocalRunLauncher"),
    ],
)
def test_doctor_names_what_is_dangerous_and_the_line_to_write(
    tmp_path: Path, config: str, what: str, line: str
) -> None:
    finding = found(home(tmp_path, config), tmp_path)[what]
    assert finding.level is Level.LOOK
    assert line in finding.found


def test_doctor_refuses_settings_that_nobody_can_read(tmp_path: Path) -> None:
    assert found(home(tmp_path, "run_queue: ["), tmp_path)["dagster.yaml"].level is Level.BAD


@pytest.mark.parametrize(
    ("age", "level", "words"),
    [(20.0, Level.GOOD, "seen 2"), (1200.0, Level.LOOK, "last seen 20 minutes ago")],
)
def test_doctor_says_whether_a_daemon_lives(
    tmp_path: Path, age: float, level: Level, words: str
) -> None:
    settings = home(tmp_path, template("laptop"))
    assert "none has run yet" in found(settings, tmp_path)["daemon"].found
    with DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, "BACKFILL", "one", []))
    finding = found(settings, tmp_path)["daemon"]
    assert finding.level is level
    assert words in finding.found


def test_doctor_says_which_executor_a_project_runs_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project", [])
    definitions = project / "shop" / "definitions.py"
    settings = home(tmp_path, template("laptop"))
    line = "import dagster as dg\n@dg.asset\ndef one() -> None: ...\ndefs = dg.Definitions([one]"
    for rest, level in (")", Level.LOOK), (", executor=dg.in_process_executor)", Level.GOOD):
        definitions.write_text(f"{line}{rest}", encoding="utf-8")
        assert found(settings, project)["executor"].level is level
        for name in ("shop", "shop.definitions"):
            monkeypatch.delitem(sys.modules, name)
    definitions.write_text("import nothing_like_this\n", encoding="utf-8")
    finding = found(settings, project)["definitions"]
    assert finding.level is Level.BAD
    assert "nothing_like_this" in finding.found
