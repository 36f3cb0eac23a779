"""Command lines in messages work when they are pasted, however the dataset was called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from ondine_dagster.cli import target as target_module
from ondine_dagster.cli.main import cli
from ondine_dagster.cli.summary import page_command
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import declaration

TEXT = (
    "Make them: ondine-dagster run notes. Or `ondine-dagster run labels --failed`, or "
    "ondine-dagster rekey; not ondine-dagster run others --partition a"
)


@pytest.fixture
def file(tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a declaration of two datasets, in a folder whose name needs quotes."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(target_module, "program", lambda: "ondine-dagster")
    notes = declaration(simulator)
    labels = notes | {"name": "labels", "source": {"dataset": "notes"}}
    kind = "ondine_dagster.LLMDataset"
    documents = [{"type": kind, "attributes": one} for one in (notes, labels)]
    (folder / "two.yaml").write_text(yaml.safe_dump_all(documents))
    (folder / "notes.csv").write_text("id,text\na,b\n")
    return folder / "two.yaml"


@pytest.mark.usefixtures("file")
def test_a_dataset_of_a_file_is_called_by_the_file(data_dir: Path) -> None:
    told = find_target("two.yaml#notes").pasteable(TEXT)
    assert told == (
        "Make them: ondine-dagster run two.yaml#notes. Or `ondine-dagster run two.yaml#labels "
        "--failed`, or ondine-dagster rekey; not ondine-dagster run others --partition a"
    )
    assert find_target("two.yaml#notes").pasteable(told) == told


def test_a_path_is_quoted_where_a_shell_needs_it(file: Path, data_dir: Path) -> None:
    target = find_target(f"{file}#labels")
    told = target.pasteable("`ondine-dagster run notes`, ondine-dagster run labels")
    assert told == f"`ondine-dagster run '{file}#notes'`, ondine-dagster run '{file}#labels'"


def test_the_data_folder_is_named_where_it_is_another_one(
    file: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = find_target("two.yaml#notes")
    monkeypatch.setenv("ONDINE_DATA_DIR", str(file.parent / "elsewhere"))
    there = Target("notes", target.declared, target.settings)
    told = there.pasteable("ondine-dagster run notes")
    assert told == f"ONDINE_DATA_DIR={data_dir} ondine-dagster run notes"
    assert there.pasteable(told) == told


def test_dagsters_page_is_started_where_the_project_is_and_shows_runs_without_one(
    file: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = f"DAGSTER_HOME={data_dir}/dagster_home"
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    said = [page_command(find_target("two.yaml#notes"))]
    (file.parent / "pyproject.toml").write_text("[tool.dg]\n")
    said.append(page_command(find_target("two.yaml#notes")))
    monkeypatch.chdir("/")
    said.append(page_command(find_target(f"{file}#notes")))
    assert said == [
        f"{home} dagster-webserver --empty-workspace",
        f"{home} dagster dev",
        f"cd '{file.parent}' && {home} dagster dev",
    ]


def test_dagster_is_named_by_its_path_where_the_shell_does_not_find_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "pyproject.toml").write_text("[tool.dg]\n")
    scripts = file.parent / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "dagster").touch()
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    assert page_command(find_target("two.yaml#notes")).endswith(" .venv/bin/dagster dev")
    monkeypatch.chdir("/")
    shown = page_command(find_target(f"{file}#notes"))
    assert shown.startswith(f"cd '{file.parent}' && ") and shown.endswith(" .venv/bin/dagster dev")


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    "command",
    [
        ("status", "two.yaml#notes"),
        ("retry", "two.yaml#notes"),
        ("run", "two.yaml#notes", "--replay"),
        ("export", "two.yaml#notes", "--to", "out.csv"),
        ("run", "two.yaml#labels"),
    ],
)
def test_what_cannot_be_done_yet_names_the_command_to_begin_with(
    command: tuple[str, ...], data_dir: Path
) -> None:
    told = CliRunner().invoke(cli, command)
    assert told.exit_code == 1
    assert "ondine-dagster run two.yaml#notes" in told.stderr, told.stderr


def test_a_folder_stands_for_its_declaration_and_another_one_is_refused(file: Path) -> None:
    place = file.parent / "labels"
    place.mkdir()
    empty = CliRunner().invoke(cli, ["status", "labels/"])
    assert (empty.exit_code, "is a folder without a defs.yaml" in empty.stderr) == (1, True)
    first = file.read_text().partition("---")[0]
    (place / "defs.yaml").write_text(first)
    assert find_target("labels/").name == "notes"
