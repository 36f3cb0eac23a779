"""What this process has used: memory, and CPU by thread."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import defaultdict


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF))


def megabytes(usage: resource.struct_rusage) -> float:
    """Return the peak memory of a process in MB."""
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def cpu_of_threads() -> defaultdict[str, float]:
    """Return what will hold the seconds of CPU of threads by name, each once it has ended."""
    seconds: defaultdict[str, float] = defaultdict(float)
    plain_run = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        try:
            plain_run(thread)
        finally:
            seconds[thread.name] += time.thread_time()

    threading.Thread.run = run  # type: ignore[method-assign, assignment]
    return seconds
