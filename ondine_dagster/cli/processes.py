"""Which process of this machine is meant, beyond its id, which is given out again after a death."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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


def _asked_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return shown.stdout.strip() or None
