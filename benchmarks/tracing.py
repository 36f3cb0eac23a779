"""What traces take of the responses step's CPU: all of them, errors only, none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.quick_server import quick_server

_ROOT = Path(__file__).resolve().parents[1]
_CONCURRENCY = 100
_SHARES = {"none": None, "errors only": "0", "all": "100"}


@dataclass(frozen=True)
class _Run:
    """Seconds of CPU: of a whole run, and of its thread that sends traces."""

    cpu: float
    sending: float


def main(rows: int = 10_000, rounds: int = 5) -> None:
    """Take turns, and keep the least of each: what disturbs a run only ever adds to it."""
    runs: dict[str, list[_Run]] = {name: [] for name in _SHARES}
    with quick_server() as server:  # provider and trace host: it says 200 to everything
        for _ in range(rounds):
            for name, share in _SHARES.items():
                runs[name].append(_run(server.base_url, rows, share))
    cpu = {name: min(one.cpu for one in found) for name, found in runs.items()}
    print(f"\n## Traces of the responses step, {rows:,} rows\n")
    print("| traced | CPU ms per row | more | of it the thread that sends |")
    print("|---|---|---|---|")
    for name, found in runs.items():
        sending = min(one.sending for one in found)
        more = cpu[name] / cpu["none"] - 1
        print(f"| {name} | {_ms(cpu[name], rows)} | {more:.1%} | {_ms(sending, rows)} |")


def _ms(seconds: float, rows: int) -> str:
    return f"{1000 * seconds / rows:.3f}"


def _run(base_url: str, rows: int, share: str | None) -> _Run:
    """Run once, in a process of its own."""
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
    found = json.loads(done.stdout)
    return _Run(found["cpu_s"], found["threads_s"].get("traces", 0.0))


if __name__ == "__main__":
    main()
