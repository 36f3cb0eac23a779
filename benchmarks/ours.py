"""The responses step as it runs in Dagster, in a process of its own.

Run by the benchmarks: `python -m benchmarks.ours --help` says how.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.reviews import NAME
from benchmarks.setup import Bench
from benchmarks.usage import peak_mb
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.storage.lake import Lake


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours")
    parser.add_argument("port", type=int, help="of the provider, on this machine")
    parser.add_argument("rows", type=int)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--rows-per-request", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="of each thread, to stderr")
    parser.add_argument("--bodies", action="store_true", help="print the requests, send none")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder),
            wanted.rows,
            f"http://127.0.0.1:{wanted.port}/v1",
            wanted.concurrency,
            rows_per_request=wanted.rows_per_request,
        )
        bench.materialize("snapshot")
        bench.materialize("raw_rows", "prompts")
        if wanted.bodies:
            _print_bodies(bench, Lake(Path(folder) / "lake"))
            return
        profiles = _profile_threads() if wanted.profile else {}
        threads = {} if wanted.profile else _time_threads()
        measured = bench.materialize(*TRIO)
        close_ledger(Path(folder) / "ledger.sqlite")
    print(
        json.dumps(
            {
                "rows": measured.rows,
                "wall_s": measured.wall,
                "cpu_s": measured.cpu,
                "max_rss_mb": peak_mb(),
                "threads_s": threads,
            }
        )
    )
    for name, profile in profiles.items():
        print(f"\n--- thread {name}", file=sys.stderr)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(20)


def _print_bodies(bench: Bench, lake: Lake) -> None:
    provider = bench.pipeline.provider
    for partition in bench.partitions():
        messages = lake.read(NAME, "prompts", partition, ["messages"]).column(0).to_pylist()
        for one in messages:
            sys.stdout.buffer.write(provider.body(one, provider.ceiling) + b"\n")


def _time_threads() -> dict[str, float]:
    """Note the seconds of CPU of each thread that ends, by its name."""
    seconds: dict[str, float] = defaultdict(float)
    plain_run = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        plain_run(thread)
        seconds[thread.name] += time.thread_time()

    threading.Thread.run = run  # type: ignore[method-assign, assignment]
    return seconds


def _profile_threads() -> dict[str, cProfile.Profile]:
    """Profile the engine's loop and the ledger's writer, each in its own thread."""
    profiles: dict[str, cProfile.Profile] = {}
    plain_run = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        if thread.name in ("engine", "ledger-writer"):
            profile = profiles.setdefault(thread.name, cProfile.Profile())
            profile.runcall(plain_run, thread)
        else:
            plain_run(thread)

    threading.Thread.run = run  # type: ignore[method-assign, assignment]
    return profiles


if __name__ == "__main__":
    main()
