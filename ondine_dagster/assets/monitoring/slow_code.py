"""Code of the user's own that is at one answer for too long: told in the log, and by `status`.

It runs in the process of the run and cannot be stopped from outside; but nobody should have to
guess where a run stands still. Owns the files by which `status` learns it from running processes.
"""

from __future__ import annotations

import faulthandler
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ondine_dagster.assets.shared.processes import Process
from ondine_dagster.assets.shared.watched_reader import Call, WatchedReader
from ondine_dagster.llm.rejection import shown
from ondine_dagster.storage.atomic import ensure_folder, write_atomically

if TYPE_CHECKING:
    from ondine_dagster.assets.shared.pipeline import Pipeline

SLOW_SECONDS = 10.0
LOOK_SECONDS = 1.0
# so long nothing else of the process may run: then Python itself writes where it stands, in a
# thread that needs no interpreter, https://docs.python.org/3/library/faulthandler.html
HELD_SECONDS = 30.0
_STANDARD_ERROR = 2
FOLDER = "slow_code"


class SlowCode:
    """Within the block, warns once of each answer that takes too long to be read."""

    def __init__(self, pipeline: Pipeline, warn: Callable[[str], object]) -> None:
        self._reader = pipeline.reader
        self._name, self._scrub = pipeline.name, pipeline.scrub
        self._warn = warn
        self._folder = pipeline.settings().data_dir / FOLDER
        self._process = Process.this()
        self._file = self._folder / f"{pipeline.name}.{self._process.pid}.json"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow code", daemon=True)

    def __enter__(self) -> Self:
        if isinstance(self._reader, WatchedReader):
            _tell_if_held()  # it may be held before the thread first looks
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        assert isinstance(self._reader, WatchedReader)
        try:
            while not self._end.wait(LOOK_SECONDS):
                _tell_if_held()
                self._look(self._reader)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._file.unlink(missing_ok=True)

    def _look(self, reader: WatchedReader) -> None:
        slow = reader.slow_calls(SLOW_SECONDS)
        for call in slow:
            if not call.told:
                self._warn(f"{self._name}: {self._told(reader, call)}")
                call.told = True
        if not slow:
            self._file.unlink(missing_ok=True)
            return
        told = [self._told(reader, call) for call in slow]
        note = {"process": asdict(self._process), "told": told}
        with suppress(OSError):  # the log has it
            ensure_folder(self._folder)
            write_atomically(self._file, json.dumps(note).encode())

    def _told(self, reader: WatchedReader, call: Call) -> str:
        seconds = time.monotonic() - call.began
        if call.row is None:
            whose = f"an answer that begins {shown(self._scrub(call.text))}"
        else:
            partition, row_key = call.row
            whose = f"the answer of row {self._scrub(row_key)} (partition {partition})"
        return f"{reader.setting} has been reading {whose} for {seconds:.0f} s"


def _tell_if_held() -> None:
    faulthandler.dump_traceback_later(HELD_SECONDS, file=_STANDARD_ERROR)


def slow_code(data_dir: Path, dataset: str) -> list[str]:
    """Return what running processes tell of their users' code; forget what dead ones have told."""
    found: list[str] = []
    for file in sorted((data_dir / FOLDER).glob(f"{dataset}.*.json")):
        try:
            note = json.loads(file.read_bytes())
        except FileNotFoundError:  # it has ended meanwhile
            continue
        if Process(**note["process"]).is_dead():
            file.unlink(missing_ok=True)
        else:
            found += note["told"]
    return found
