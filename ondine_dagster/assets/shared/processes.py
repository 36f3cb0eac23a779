"""Which process of this machine is meant, beyond its id, which is given out again after a death.

Owns how a run remembers the process of the command line that it goes on in.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_HOST, _PID, _STARTED = "ondine/host", "ondine/pid", "ondine/process_started"  # tags of a run
_STATE, _START_TIME = 0, 19  # fields of /proc/<pid>/stat, counted after the name


@dataclass(frozen=True, slots=True)
class Process:
    """One process: host, process id, and when it began in the words of the system."""

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Self:
        """Return the process that asks."""
        return cls(socket.gethostname(), os.getpid(), started_at(os.getpid()) or "")

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Self:
        """Return the process that a run remembers in its tags."""
        return cls(tags.get(_HOST, ""), int(tags.get(_PID, 0)), tags.get(_STARTED, ""))

    def tags(self) -> dict[str, str]:
        """Return what a run has to remember."""
        return {_HOST: self.host, _PID: str(self.pid), _STARTED: self.started}

    def is_dead(self) -> bool:
        """Return whether it has certainly ended; of other hosts nothing is known."""
        return self.host == socket.gethostname() and started_at(self.pid) != self.started


def started_at(pid: int) -> str | None:
    """Return when the process began; None where there is no such process, or only its remains."""
    if not Path("/proc/self/stat").exists():
        return _asked_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[_STATE] in "ZX" else fields[_START_TIME]


def began_at(pid: int) -> float | None:
    """Return when the process began, as seconds since 1970, exact to about a second."""
    started = started_at(pid)
    if started is None:
        return None
    if not started.isdigit():
        return time.mktime(time.strptime(started, "%a %b %d %H:%M:%S %Y"))
    booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text("utf-8"), re.MULTILINE)
    assert booted is not None
    return int(booted[1]) + int(started) / os.sysconf("SC_CLK_TCK")


def _asked_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    return shown.stdout.strip() or None
