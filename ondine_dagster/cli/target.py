"""What a command works on: a dataset with its settings, and how it is called in messages."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.component.declarations import Declared, find_declaration, load_declaration
from ondine_dagster.errors import OndineError
from ondine_dagster.settings import DATA_DIR, Settings, find_project_root, load_settings
from ondine_dagster.storage.lake import Lake

_NAME = re.compile("[a-z][a-z0-9_]*")
# needs no quotes in a shell; # begins a comment only at the start of a word
_PLAIN = re.compile(r"[\w@%+=:,./-][\w@%+=:,./#-]*")
# a command line as the assets write it, who know a dataset by its name only
_BY_NAME = re.compile(
    rf"(?<![\w/.-])(?P<set>{DATA_DIR}=(?:'[^']*'|\S+) )?ondine-dagster "
    r"(?P<verb>[a-z]+)(?: (?P<name>[a-z][a-z0-9_]*)(?![\w/#-]|\.\w))?"
)
_OF_A_DATASET = frozenset(
    {"doctor", "explain", "export", "plan", "preview", "retry", "run", "status", "verify"}
)


@dataclass(frozen=True)
class Target:
    """One dataset; `called` is how the person named it, as a word of a shell."""

    called: str
    declared: Declared
    settings: Settings

    @property
    def name(self) -> str:
        """Return the dataset's name."""
        return self.declared.dataset.name

    @cached_property
    def pipeline(self) -> Pipeline:
        """Return what its stages share."""
        declared = self.declared
        return Pipeline(declared.dataset, declared.declared_in, declared.project_root)

    @property
    def lake(self) -> Lake:
        """Return the lake it lives in."""
        return Lake(self.settings.lake_root)

    def command(self, text: str) -> str:
        """Return a command line about this data that works when pasted in the current folder."""
        here = load_settings(Path.cwd())
        same = here.data_dir == self.settings.data_dir
        setting = "" if same else f"{DATA_DIR}={shlex.quote(str(self.settings.data_dir))} "
        return f"{setting}{program()} {text}"

    def pasteable(self, text: str) -> str:
        """Return `text` with its command lines as they work when pasted in the current folder."""

        def as_here(found: re.Match[str]) -> str:
            if found["set"]:
                return found[0]
            name, verb = found["name"], found["verb"]
            if name and verb in _OF_A_DATASET:
                (own,) = shlex.split(self.called)
                name = self.called if name == self.name else word(_beside(own, name))
            return self.command(f"{verb} {name}" if name else verb)

        return _BY_NAME.sub(as_here, text)

    def query(self, asset: str, rest: str = "") -> str:
        """Return a command line that shows the rows of an asset."""
        select = f"select * from {self.name}.{asset}{rest}"  # noqa: S608 (shown, not executed)
        return self.command(f'sql "{select}"')


def find_target(called: str) -> Target:
    """Return the dataset that a person named: by name in this project, or by the path of a YAML.

    Raises OndineError where there is no such dataset, or its declaration is wrong.
    """
    declared = _find(called, Path.cwd())
    target = Target(word(called), declared, load_settings(declared.project_root))
    context = click.get_current_context(silent=True)
    if context is not None:  # so that what goes wrong from here on names commands that work
        context.find_root().obj = target
    return target


def upstream_of(called: str) -> list[str]:
    """Return the datasets whose results a dataset reads, the first step first, as they are called.

    They are looked up in the same file, then in the project. Raises OndineError where one is not
    there, and where they read one another.
    """
    found: list[str] = []
    names = [find_target(called).name]
    while (name := find_target(called).declared.dataset.source.dataset) is not None:
        if name in names:
            raise OndineError(f"{' reads '.join([*names, name])}: there is no first step.")
        names.append(name)
        called = _beside(called, name)
        found.insert(0, called)
    return found


def _beside(called: str, name: str) -> str:
    if _NAME.fullmatch(called):
        return name
    path = called.partition("#")[0]
    in_file = {one.dataset.name for one in load_declaration(Path(path))}
    return f"{path}#{name}" if name in in_file else name


def word(called: str) -> str:
    """Return how a dataset is called on a command line: in quotes where a shell needs them."""
    return called if _PLAIN.fullmatch(called) else shlex.quote(called)


def _find(called: str, cwd: Path) -> Declared:
    if not _NAME.fullmatch(called):
        return _in_file(called)
    root = find_project_root(cwd)
    if root is not None:
        return find_declaration(called, root)
    if Path(called).exists():
        return _in_file(called)
    raise OndineError(
        f"{called} is the name of a dataset, but there is no project here: no pyproject.toml with "
        f"[tool.dg] in {cwd} or above. Go to the project's folder, or give the path of a YAML file."
    )


def _in_file(called: str) -> Declared:
    path, _, name = called.partition("#")
    declared = load_declaration(Path(path))
    found = [one for one in declared if name in ("", one.dataset.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.dataset.name for one in declared)
    if not found:
        raise OndineError(f"{path} declares no dataset {name}. It declares: {names}.")
    raise OndineError(
        f"{path} declares several datasets: {names}. Say which: {path}#{found[0].dataset.name}"
    )


def program(
    name: str = "ondine-dagster", module: str = "ondine_dagster.cli.main", here: Path | None = None
) -> str:
    """Return how to call a program of this environment from a shell in `here`, the current folder.

    By its name where the shell finds it, else by its path, or as a module where it has no script.
    """
    script = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found).absolute() == script.absolute():
        return name
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m {module}"
    here = here or Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
