"""What the disk has when a request leaves. Kill -9 cannot show it; the calls of the system can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondine_dagster.simulator import Simulator

_ROOT = Path(__file__).parents[2]
_CALLS = "trace=pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync"


def begun(lines: list[str], *parts: str, after: int = 0) -> int:
    """Return the first line after another at which a call with all of these parts begins."""
    for index, line in enumerate(lines[after:], after):
        if all(part in line for part in parts):
            return index
    raise AssertionError(f"no call with {parts} after line {after} of {len(lines)}")


def ended(lines: list[str], index: int) -> int:
    """Return the line at which a call ends: a later one where other threads came in between."""
    thread = lines[index].split()[0]
    if lines[index].endswith("<unfinished ...>"):
        return begun(lines, f"{thread} <... ", " resumed>", after=index)
    return index


@pytest.mark.skipif(sys.platform != "linux", reason="strace is a tool of Linux")
def test_a_reservation_is_on_the_disk_before_the_first_byte_is_sent(
    simulator: Simulator, tmp_path: Path
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    trace = tmp_path / "trace"
    tracing = [strace, "-f", "-y", "-s", "5000", "-e", _CALLS, "-o", str(trace)]
    asking = [sys.executable, "-m", "ondine_dagster_tests.engine.same_questions"]
    subprocess.run(
        [*tracing, *asking, str(tmp_path / "data"), simulator.base_url, "1"],
        input="go\n",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    assert simulator.bill.totals.answered == 1
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    # the key of the row is in no page that was written before its reservation
    written = begun(lines, "write", "ledger.sqlite-wal>", "row-0")
    synced = ended(lines, begun(lines, "sync(", "ledger.sqlite-wal>", after=written))
    assert lines[synced].endswith("= 0")
    assert synced < begun(lines, "POST /v1/chat/completions")
