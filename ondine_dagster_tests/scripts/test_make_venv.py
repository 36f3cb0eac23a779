"""`make` must work, or say what to install, on machines that differ only in their Pythons."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import behaviours

SCRIPT = behaviours.ROOT / "scripts" / "make_venv.sh"

# Answers what the script asks a Python, and makes a "virtual environment" that holds a note.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *"sys.exit("*) exit {too_old} ;;
    *"import ensurepip"*) exit {no_venv} ;;
    *"print("*) echo "3.11" ;;
    *"-m venv --clear"*) mkdir -p "$4" && echo "{name}" > "$4/made-by" ;;
    *) exit 1 ;;
esac
"""


def fake_python(folder: Path, name: str, *, too_old: bool = False, no_venv: bool = False) -> None:
    path = folder / name
    text = FAKE_PYTHON.format(name=name, too_old=int(too_old), no_venv=int(no_venv))
    path.write_text(text)
    path.chmod(0o755)


def make_venv(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("sh", "mkdir"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    return subprocess.run(
        ["/bin/sh", SCRIPT, folder / "venv"],
        env={"PATH": f"{folder}{os.pathsep}{tools}", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_without_venv_is_named_with_its_package(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", no_venv=True)
    result = make_venv(tmp_path)
    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr
    assert "python3.11-venv" in result.stderr


def test_without_a_new_enough_python_the_message_says_what_was_tried(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", too_old=True)
    result = make_venv(tmp_path)
    assert result.returncode == 1
    assert "No Python 3.11 or newer" in result.stderr


def test_commands_that_do_not_run_or_cannot_make_venvs_are_passed_over(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.13", too_old=True)
    fake_python(tmp_path, "python3.12", no_venv=True)
    fake_python(tmp_path, "python3.11")
    result = make_venv(tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "venv" / "made-by").read_text() == "python3.11\n"


def test_a_python_that_is_named_goes_first(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3.13")
    fake_python(tmp_path, "mine")
    assert make_venv(tmp_path, PYTHON="mine").returncode == 0
    assert (tmp_path / "venv" / "made-by").read_text() == "mine\n"


def test_a_half_made_environment_is_made_anew_and_a_whole_one_left_alone(tmp_path: Path) -> None:
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    fake_python(tmp_path, "python3")
    assert make_venv(tmp_path).returncode == 0
    made = tmp_path / "venv" / "made-by"
    assert made.exists()

    made.unlink()
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binaries / "python").chmod(0o755)
    assert subprocess.run(["/bin/sh", SCRIPT, tmp_path / "venv"], check=False).returncode == 0
    assert not made.exists()
