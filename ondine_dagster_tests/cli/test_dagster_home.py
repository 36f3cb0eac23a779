"""DAGSTER_HOME: made once however many begin, and left alone where it is somebody's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData

from ondine_dagster.assets.shared.processes import Process, started_at
from ondine_dagster.cli.dagster_home import open_instance
from ondine_dagster.settings import load_settings
from ondine_dagster_tests.cli.typing_person import Person, Terminal


@pytest.mark.slow
def test_six_processes_at_once_begin_with_a_fresh_home_and_ask_each_question_once(
    person: Person, start: Callable[..., Terminal]
) -> None:
    person.write(60)
    terminals = [start("run", str(person.declared_in)) for _ in range(6)]
    codes = [terminal.ends() for terminal in terminals]
    assert codes == [0] * 6, "\n".join(terminal.output for terminal in terminals)
    bill = person.simulator.bill.totals
    assert (bill.charged, bill.repeats) == (60, 0)


def test_a_home_of_ones_own_is_used_and_its_settings_stay(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "own"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    person.write(2)
    assert person.runs().exit_code == 0
    assert (home / "history").is_dir()
    assert not (home / "dagster.yaml").exists()
    assert not person.settings.own_dagster_home.exists()


def test_the_home_in_the_data_folder_sends_no_telemetry(person: Person) -> None:
    person.write(2)
    person.runs()
    config = person.settings.own_dagster_home / "dagster.yaml"
    assert "enabled: false" in config.read_text(encoding="utf-8")
    config.write_text("# mine\n", encoding="utf-8")
    person.runs()
    assert config.read_text(encoding="utf-8") == "# mine\n"


def test_a_process_is_dead_when_its_id_is_somebody_elses() -> None:
    here = Process.this()
    assert not here.is_dead()
    assert Process(here.host, here.pid, "another time").is_dead()
    assert not Process("another-host", here.pid, "another time").is_dead()


def test_a_process_that_nobody_has_buried_is_dead() -> None:
    child = subprocess.Popen(["true"])
    while started_at(child.pid) is not None:
        pass  # it ends at once, and stays a zombie until we wait for it
    assert Process(Process.this().host, child.pid, "its time").is_dead()
    child.wait()


class Killed(BaseException):
    """The process is gone from here on."""


@pytest.mark.parametrize("after", range(3))
def test_a_home_whose_making_was_killed_is_made_by_the_next_one(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(tmp_path)
    made: list[MetaData] = []
    make = MetaData.create_all

    def make_or_die(tables: MetaData, engine: Engine) -> None:
        if len(made) == after:
            raise Killed
        make(tables, engine)
        made.append(tables)

    with monkeypatch.context() as patch:
        patch.setattr(MetaData, "create_all", make_or_die)
        with pytest.raises(Killed), open_instance(settings):
            pass
    with open_instance(settings) as instance:
        assert instance.get_runs_count() == 0
        assert instance.get_dynamic_partitions("any") == []
        assert instance.all_instigator_state() == []
    names = {path.name for path in settings.dagster_home.iterdir()}
    assert names == {".ondine.lock", "dagster.yaml", "history", "schedules"}
