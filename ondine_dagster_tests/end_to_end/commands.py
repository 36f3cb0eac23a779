"""`ondine-dagster` in processes of its own, as a person and as a scheduler start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ondine_dagster_tests.end_to_end.projects import ROOT
from ondine_dagster_tests.workbench import write_rows

SECONDS = 180.0
KILLING_MAIN = Path(__file__).with_name("killing_main.py")


@dataclass(frozen=True)
class Ended:
    """A command that has ended; `output` is standard output and error, as they came."""

    code: int
    output: str


class Command:
    """A command that runs, in a session of its own."""

    def __init__(self, arguments: Sequence[str | Path], data: Path, **variables: str) -> None:
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={
                **os.environ,
                "ONDINE_DATA_DIR": str(data),
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self) -> Ended:
        """Wait for the end; kill what hangs."""
        try:
            output, _ = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
            raise AssertionError(f"the command did not end:\n{output[-5000:]}") from None
        return Ended(self._process.returncode, output)


def _hear_interrupts() -> None:
    # a test run that was started in the background ignores SIGINT, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(data: Path, *arguments: str | Path) -> Command:
    """Start `ondine-dagster` with these arguments on a data folder."""
    return Command(["-m", "ondine_dagster.cli.main", *arguments], data)


def run(data: Path, *arguments: str | Path) -> Ended:
    """Run `ondine-dagster` to its end."""
    return start(data, *arguments).wait()


def start_killing(data: Path, where: str, call: int, *arguments: str | Path) -> Command:
    """Start `ondine-dagster` so that it kills itself at a `call` of `where`."""
    return Command([KILLING_MAIN, *arguments], data, KILL_WHERE=where, KILL_CALL=str(call))


def write_dataset(folder: Path, attributes: Mapping[str, Any], rows: Sequence[Any]) -> Path:
    """Write a source and the YAML file that declares it; return the file."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / attributes["source"]["path"], rows)
    file = folder / f"{attributes['name']}.yaml"
    document = {"type": "ondine_dagster.LLMDataset", "attributes": dict(attributes)}
    file.write_text(yaml.safe_dump(document, allow_unicode=True))
    return file
