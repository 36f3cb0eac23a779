"""One engine at high concurrency: how close to concurrency ÷ latency, and what it takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.engines import Done, Work, engines
from benchmarks.quick_server import Quick, quick_server


def main(rows: int = 20_000, concurrency: int = 200, latency_ms: int = 50) -> None:
    """Also at four times the latency and half of the rows, where the CPU is not the limit."""
    print(f"\n## One engine at concurrency {concurrency}\n")
    print(
        "| latency | rows | rows/s | of concurrency ÷ latency | loop busy | ledger's writer busy "
        "| all threads | server busy | most tasks | peak memory |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for latency, count in ((latency_ms, rows), (4 * latency_ms, rows // 2)):
        done, server = _measure(count, concurrency, latency)
        _row(done, server, latency, 1000 * concurrency / latency)
    print("\nBusy is CPU ÷ wall clock. Tasks and memory: after a tenth of the rows → at the end.")


def _measure(rows: int, concurrency: int, latency_ms: int) -> tuple[Done, Quick]:
    with tempfile.TemporaryDirectory() as folder, quick_server(latency_ms) as server:
        work = Work(Path(folder), server.base_url, concurrency, rows)
        with engines(work, 1) as running:
            running.go()
            (done,) = running.done()
    assert done.answered == rows
    return done, server


def _row(done: Done, server: Quick, latency_ms: int, ideal: float) -> None:
    rate = done.answered / done.wall
    busy = (
        done.threads["engine"],
        done.threads["ledger-writer"],
        done.cpu,
        server.cpu,
    )
    print(
        f"| {latency_ms} ms | {done.answered:,} | {rate:,.0f} | {rate / ideal:.0%} | "
        + " | ".join(f"{seconds / done.wall:.0%}" for seconds in busy)
        + f" | {done.tasks[0]} → {done.tasks[-1]} | "
        f"{done.peak_mb[0]:.0f} → {done.peak_mb[-1]:.0f} MB |",
        flush=True,
    )
