"""What holds for the package as a whole: what it costs to import, needs, and contains."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ondine_dagster"

# Slow to import and not needed before an asset runs.
HEAVY = {"aiohttp", "dagster_pandas", "duckdb", "matplotlib", "numpy", "pandas", "pyarrow"}

# Needed at run time and imported by nobody: `dagster dev` is a program.
PROGRAMS = {"dagster-webserver"}

# Used where they are installed: uvloop comes with the webserver, except on Windows. pytest loads
# the simulator's plugin, not the other way round. Who has a DataFrame of polars has polars, and the
# kernel of a notebook has IPython.
OPTIONAL = {"IPython", "polars", "pytest", "uvloop"}

# Parts of another one, which installs the version that fits.
PARTS = {
    "annotated-types": "pydantic",
    "dagster-shared": "dagster",
    "pydantic-core": "pydantic",
}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    """Return the normalised distribution name of a requirement line."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return normalised(match.group())


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules() -> set[str]:
    """Return the top-level modules that the package imports anywhere."""
    modules: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    return modules - set(sys.stdlib_module_names) - {"ondine_dagster"}


@pytest.mark.parametrize("module", ["ondine_dagster", "ondine_dagster.definitions"])
def test_starting_up_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY & set(json.loads(result.stdout.splitlines()[-1])) == set()


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported() -> None:
    by_module = packages_distributions()
    distributions = {
        normalised(distribution)
        for module in imported_modules() - OPTIONAL
        for distribution in by_module[module]
    }
    imported = {PARTS.get(distribution, distribution) for distribution in distributions}
    declared = {name_of(each) for each in project()["dependencies"]}
    extras = {
        name_of(each)
        for extra, needed in project()["optional-dependencies"].items()
        for each in needed
        if extra != "dev"
    }
    assert imported - declared - extras == set()
    assert declared - imported == PROGRAMS


@pytest.mark.behaviour("P-5")
def test_the_environment_is_read_in_one_place() -> None:
    readers = {path.name for path in PACKAGE.rglob("*.py") if reads_environment(path.read_text())}
    assert readers == {"settings.py"}


@pytest.mark.behaviour("P-5")
def test_keys_come_from_the_settings_whatever_the_environment_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-process")
    settings = load_settings(ROOT, {"OPENAI_API_KEY": "sk-given"})
    (key,) = settings.keys_in("OPENAI_API_KEY")
    assert key.get_secret_value() == "sk-given"
    assert load_settings(ROOT, {}).keys_in("OPENAI_API_KEY") == ()


def reads_environment(source: str) -> bool:
    """Return whether a module uses os.environ or os.getenv."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in names:
                return True
            case ast.ImportFrom(module="os", names=imported):
                if names & {alias.name for alias in imported}:
                    return True
    return False


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"]
)
def test_a_second_reader_of_the_environment_would_be_found(source: str) -> None:
    assert reads_environment(source)


def test_constraints_are_exact_versions_within_the_declared_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    pinned = {name_of(pin): pin.split("==")[1] for pin in pins}
    declared = project()
    for requirement in (*declared["dependencies"], *declared["optional-dependencies"]["dev"]):
        bound = requirement.split(">=")[1]
        assert numbers(pinned[name_of(requirement)]) >= numbers(bound), requirement


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


@pytest.mark.behaviour("P-16")
def test_ci_checks_types_docstrings_and_dead_code() -> None:
    steps = set(re.findall(r'^ *step "[^"]+" (\S+)', (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert steps >= {"test", "lint", "types", "imports", "docs-check", "dead-code"}
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["strict"] is True
    assert "D1" in tools["ruff"]["lint"]["select"]
    for tool in ("mypy", "vulture"):
        assert "ondine_dagster" in tools[tool].get("files", tools[tool].get("paths"))


def test_the_changelog_speaks_of_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == project()["version"]


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PACKAGE, source / "ondine_dagster", ignore=ignored)
    for name in ("pyproject.toml", "setup.cfg", "README.md"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, tmp_path],
        cwd=source,
        capture_output=True,
        check=True,
    )
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "ondine_dagster").rglob("*")
        if path.is_file()
    }
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
