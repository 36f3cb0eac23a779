"""The list of behaviours is only worth something if it reports what the tests really carry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import behaviours
import pytest

PAGE = """
| ID | due | what must hold |
|---|---|---|
| E-1 | 0.1 | Numbers have no gaps. |
| E-1b | 0.1 | Numbers go on. |
| A-3 | later | Bodies are encrypted. |
| A-32 | never | Chat settings. |
"""

TESTS = """
import pytest

pytestmark = [pytest.mark.behaviour("E-1")]

@pytest.mark.parametrize("n", [1, 2])
def test_gaps(n): ...

class TestThreads:
    @pytest.mark.behaviour("{carried}")
    def test_threads(self): ...
"""


def run_script(folder: Path, carried: str) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(PAGE)
    (folder / "test_sample.py").write_text(TESTS.format(carried=carried))
    script = behaviours.ROOT / "scripts" / "behaviours.py"
    command = [sys.executable, script, "--page", folder / "page.md", "--tests", folder]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_marks_on_module_class_and_parameters_are_found(tmp_path: Path) -> None:
    result = run_script(tmp_path, "A-3")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("E-1 "))
    assert lines[first + 1].strip() == "test_sample.py::test_gaps"
    assert lines[first + 2].strip() == "test_sample.py::TestThreads::test_threads"
    assert lines[first + 3].startswith("E-1b")
    assert "Due: 2, proved by a test: 1" in lines
    assert "Due and without a test: E-1b" in lines
    assert "Later and without a test: none" in lines


def test_an_id_that_the_page_does_not_have_fails(tmp_path: Path) -> None:
    result = run_script(tmp_path, "E-99")
    assert result.returncode == 1
    assert "E-99: not in the list, carried by test_sample.py::TestThreads" in result.stderr


def test_tests_that_do_not_load_fail(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    result = run_script(tmp_path, "A-3")
    assert result.returncode == 1
    assert "no_such_module" in result.stderr


def test_an_id_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="E-1 is listed twice"):
        behaviours.read_page(PAGE + "| E-1 | 0.1 | Again. |\n")


def test_the_real_page_can_be_read() -> None:
    page = behaviours.read_page(behaviours.PAGE.read_text(encoding="utf-8"))
    assert len(page) > 80
    assert {b.due for b in page} == {"0.1", "later", "never"}
