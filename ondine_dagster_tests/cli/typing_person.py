"""Somebody in a folder with one declaration, who types commands.

Commands run in this process where that is enough, and as processes where signals, terminals or
several processes at once matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from click.testing import CliRunner, Result

from ondine_dagster.cli.main import cli
from ondine_dagster.ledger.ledger import close_ledger, open_ledger
from ondine_dagster.settings import load_settings
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import Rows, declaration, numbered, write_rows

PATIENCE_SECONDS = 240  # six at once on two busy cores take a while


class Person:
    """Works in `folder` on the dataset `notes`, whose prompt is its column `text`."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.folder = folder
        self.simulator = simulator
        self.declared_in = folder / "notes.yaml"
        self.settings = load_settings(folder)

    def write(self, rows: Rows | int, **sections: Any) -> None:
        """Write source and declaration; a number makes that many rows."""
        write_rows(self.folder / "notes.csv", numbered(rows) if isinstance(rows, int) else rows)
        self.declare(**sections)

    def declare(self, path: Path | None = None, **sections: Any) -> None:
        """Write the declaration."""
        attributes = declaration(self.simulator, **sections)
        document = {"type": "ondine_dagster.LLMDataset", "attributes": attributes}
        (path or self.declared_in).write_text(yaml.safe_dump(document), encoding="utf-8")

    def types(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(cli, arguments, catch_exceptions=False)

    def runs(self, *options: str) -> Result:
        """Run `run` on the declaration."""
        return self.types("run", str(self.declared_in), *options)

    def asks(self, query: str) -> str:
        """Return the CSV that `sql` prints."""
        result = self.types("sql", query)
        assert result.exit_code == 0, result.output
        return result.stdout

    @property
    def paid(self) -> int:
        """Return how many requests the provider has charged."""
        return self.simulator.bill.totals.charged

    @contextmanager
    def dagster(self) -> Iterator[dg.DagsterInstance]:
        """Open the instance that the runs were recorded in."""
        with dg.DagsterInstance.from_config(str(self.settings.dagster_home)) as instance:
            yield instance


class Terminal:
    """A command in a process of its own; what it prints is read as it comes."""

    def __init__(
        self, folder: Path, *arguments: str, module: str = "ondine_dagster.cli.main"
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Return what was printed so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, text: str) -> None:
        """Wait until `text` was printed."""

        def printed() -> bool:
            return any(text in line for line in self._lines)

        with self._changed:
            self._changed.wait_for(lambda: self._ended or printed(), PATIENCE_SECONDS)
            assert printed(), f"{text!r} is not in:\n{''.join(self._lines)}"

    def ends(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def close(self) -> None:
        """End the process if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.ends()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def miscount(person: Person) -> None:
    """Make the counters of the ledger wrong."""
    ledger = open_ledger(person.settings.ledger_path)
    with ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE spend SET settled = settled + 1 WHERE unit = 'usd'")
    close_ledger(person.settings.ledger_path)
