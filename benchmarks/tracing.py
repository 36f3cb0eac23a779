"""What traces take of the responses step's CPU: all of them, errors only, none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.quick_server import quick_server

_ROOT = Path(__file__).resolve().parents[1]
_CONCURRENCY = 100
_SHARES = {"none": None, "errors only": "0", "all": "100"}


def main(rows: int = 10_000, rounds: int = 5) -> None:
    """Take turns, and keep the least of each: what disturbs a run only ever adds to it."""
    cpu = {name: float("inf") for name in _SHARES}
    with quick_server() as server:  # provider and trace host: it says 200 to everything
        for _ in range(rounds):
            for name in _SHARES:
                cpu[name] = min(cpu[name], _cpu(server.base_url, rows, _SHARES[name]))
    print(f"\n## Traces of the responses step, {rows:,} rows\n")
    print("| traced | CPU ms per row | more |")
    print("|---|---|---|")
    for name, seconds in cpu.items():
        print(f"| {name} | {1000 * seconds / rows:.3f} | {seconds / cpu['none'] - 1:.1%} |")


def _cpu(base_url: str, rows: int, share: str | None) -> float:
    """Return the seconds of CPU of one run, in a process of its own."""
    parts = urlsplit(base_url)
    environ = dict(os.environ)
    if share is not None:
        environ |= {
            "ONDINE_TRACES": "langfuse",
            "LANGFUSE_PUBLIC_KEY": "pk",
            "LANGFUSE_SECRET_KEY": "sk",
            "LANGFUSE_BASE_URL": f"http://{parts.netloc}",
            "ONDINE_TRACES_SAMPLE_PERCENT": share,
        }
    command = [sys.executable, "-m", "benchmarks.ours"]
    done = subprocess.run(
        [*command, str(parts.port), str(rows), str(_CONCURRENCY)],
        cwd=_ROOT,
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: float = json.loads(done.stdout)["cpu_s"]
    return found


if __name__ == "__main__":
    main()
