"""Runs a page as its reader would: saves its files, types its commands, compares what is shown.

The commands share one folder and one shell state (`cd` and `export` last), and a home folder of
their own, so that nothing of the person who runs the tests is read or written.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from doc_pages import Block, Page, Step, steps

# Long enough for a Dagster run on a busy machine; a command that hangs still ends.
COMMAND_SECONDS = 180.0


class PageError(AssertionError):
    """A page says something that did not happen."""


def missing_lines(shown: Iterable[str], output: str) -> list[str]:
    """Return the shown lines that `output` does not have, in this order.

    Spaces count as one, and `...` stands for anything within a line (alone: for any lines).
    """
    real = [" ".join(line.split()) for line in output.splitlines()]
    missing: list[str] = []
    position = 0
    for line in shown:
        parts = [re.escape(" ".join(part.split())) for part in re.split(r"\.\.\.|…", line)]
        if not any(parts):
            continue
        pattern = re.compile(".*".join(parts))
        hit = next((i for i in range(position, len(real)) if pattern.search(real[i])), None)
        if hit is None:
            missing.append(line)
        else:
            position = hit + 1
    return missing


class PageRunner:
    """One run of one page in `folder`. A context manager: it ends what the page left running."""

    def __init__(self, page: Page, folder: Path, port: int) -> None:
        self._page = page
        self._port = str(port)
        self._work = folder / "work"
        self._state = folder / "shell_state"
        self._home = folder / "home"
        self._background: list[_Background] = []

    def __enter__(self) -> PageRunner:
        self._work.mkdir()
        self._home.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._background:
            process.stop()

    def run(self) -> None:
        """Run the page. Raises PageError with command and output at the first difference."""
        for block in self._page.blocks():
            if (name := block.note("file")) is not None:
                self._save(name, block.text)
            elif block.language == "console" and block.note("not run") is None:
                self._type(block)

    def _save(self, name: str, text: str) -> None:
        path = self._work / self._real(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._real(text), encoding="utf-8")

    def _type(self, block: Block) -> None:
        for step in steps(block):
            real = Step(self._real(step.command), tuple(map(self._real, step.shown)))
            if block.note("background") is None:
                self._run_step(block, real)
            else:
                self._start_step(block, real)

    def _real(self, text: str) -> str:
        """Return `text` with the page's port replaced by the free one."""
        return text.replace(self._page.port, self._port) if self._page.port else text

    def _run_step(self, block: Block, step: Step) -> None:
        state = shlex.quote(str(self._state))
        script = (
            f"[ -f {state} ] && . {state}\n{step.command}\ncode=$?\n"
            f"{{ echo cd \"'$PWD'\"; export -p; }} > {state}\nexit $code\n"
        )
        result = subprocess.run(
            ["/bin/sh", "-c", script],
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            **self._process_options(),
        )
        should_fail = block.note("fails") is not None
        if (result.returncode != 0) is not should_fail:
            self._differs(block, step, f"it ended with {result.returncode}", result.stdout)
        if missing := missing_lines(step.shown, result.stdout):
            self._differs(block, step, f"the page shows {missing}", result.stdout)

    def _start_step(self, block: Block, step: Step) -> None:
        process = _Background(shlex.split(step.command), self._process_options())
        self._background.append(process)
        if missing := process.wait_for(step.shown):
            self._differs(block, step, f"the page shows {missing}", process.output)

    def _process_options(self) -> dict[str, Any]:
        env = {
            **os.environ,
            "HOME": str(self._home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("ONDINE_DATA_DIR", "XDG_DATA_HOME"):
            env.pop(name, None)
        return {
            "cwd": self._work,
            "env": env,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    @staticmethod
    def _differs(block: Block, step: Step, what: str, output: str) -> None:
        raise PageError(f"{block.where}\n$ {step.command}\n{what}; the output was:\n{output}")


class _Background:
    """A command that goes on, and what it has printed so far."""

    def __init__(self, command: list[str], options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(command, start_new_session=True, **options)
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, shown: Iterable[str]) -> list[str]:
        """Wait until all lines were printed; return those that are missing at its end."""
        wanted = list(shown)
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or not missing_lines(wanted, self.output), COMMAND_SECONDS
            )
            return missing_lines(wanted, self.output)

    def stop(self) -> None:
        """End the process, harder if it does not listen."""
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=15)
        assert self._process.stdout is not None
        self._process.stdout.close()
