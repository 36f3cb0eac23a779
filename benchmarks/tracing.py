"""What traces take of the responses step's CPU: all of them, errors only, none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.provider import Provider
from benchmarks.quick_server import quick_server

_ROOT = Path(__file__).resolve().parents[1]
_CONCURRENCY = 100
_SHARES = {"none": None, "errors only": "0", "all": "100"}


@dataclass(frozen=True)
class _Run:
    """Seconds of CPU: of a whole run, and of its thread that sends traces."""

    cpu: float
    sending: float


def main(
    rows: int = 10_000, rounds: int = 5, rows_per_request: int = 1, host: str = "langfuse"
) -> None:
    """Take turns, and keep the least of each: what disturbs a run only ever adds to it."""
    runs: dict[str, list[_Run]] = {name: [] for name in _SHARES}
    with ExitStack() as servers:
        traces = servers.enter_context(quick_server()).base_url  # says 200 to everything
        provider = traces
        if rows_per_request > 1:  # an answer for each row
            provider = servers.enter_context(Provider()).base_url
        for _ in range(rounds):
            for name, share in _SHARES.items():
                environ = {} if share is None else _environ(host, traces, share)
                runs[name].append(_run(provider, rows, rows_per_request, environ))
    cpu = {name: min(one.cpu for one in found) for name, found in runs.items()}
    packs = f" in packs of {rows_per_request}" if rows_per_request > 1 else ""
    print(f"\n## Traces of the responses step to {host}, {rows:,} rows{packs}\n")
    print("| traced | CPU ms per row | more | of it the thread that sends |")
    print("|---|---|---|---|")
    for name, found in runs.items():
        sending = min(one.sending for one in found)
        more = cpu[name] / cpu["none"] - 1
        print(f"| {name} | {_ms(cpu[name], rows)} | {more:.1%} | {_ms(sending, rows)} |")


def _ms(seconds: float, rows: int) -> str:
    return f"{1000 * seconds / rows:.3f}"


def _environ(host: str, url: str, share: str) -> dict[str, str]:
    """Return the variables that let a run trace this share of its rows."""
    address = url.removesuffix("/v1")
    found = {"ONDINE_TRACES": host, "ONDINE_TRACES_SAMPLE_PERCENT": share}
    if host == "otlp":
        return found | {"OTEL_EXPORTER_OTLP_ENDPOINT": address}
    keys = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
    return found | keys | {"LANGFUSE_BASE_URL": address}


def _run(provider: str, rows: int, rows_per_request: int, environ: dict[str, str]) -> _Run:
    """Run once, in a process of its own."""
    sizes = [str(one) for one in (urlsplit(provider).port, rows, _CONCURRENCY)]
    packs = ["--rows-per-request", str(rows_per_request)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ours", *sizes, *packs],
        cwd=_ROOT,
        env={**os.environ, **environ},
        check=True,
        stdout=subprocess.PIPE,
    )
    found = json.loads(done.stdout)
    return _Run(found["cpu_s"], found["threads_s"].get("traces", 0.0))


if __name__ == "__main__":
    main()
