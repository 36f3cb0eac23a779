"""200,000 rows: how fast the stages are that ask nobody, and what Dagster itself takes of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.pairs import context, pay
from benchmarks.reviews import NAME
from benchmarks.setup import Bench, Measured
from benchmarks.usage import peak_mb
from ondine_dagster.assets.prompts import write_prompts
from ondine_dagster.assets.raw_rows import write_raw_rows
from ondine_dagster.assets.responses import write_partitions
from ondine_dagster.assets.rows.outcomes import feeds
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.engine.engine import Engine, EngineLimits
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import take_snapshot


def main(rows: int = 200_000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rows, "http://127.0.0.1:1/v1")
        print(f"\n## {rows} rows, 5,000 per partition\n")
        print("| stages | rows/s | CPU ms per row | Dagster's share | peak memory |")
        print("|---|---|---|---|---|")
        measured = [bench.materialize("snapshot"), bench.materialize("raw_rows", "prompts")]
        _row("snapshot to prompts", measured, _timed(lambda: _first_half(bench)))
        ledger = open_ledger(Path(folder) / "ledger.sqlite")
        pay_all(ledger, Lake(Path(folder) / "lake"), bench.partitions())
        measured = [bench.materialize(*TRIO)]
        _row("responses to results, all paid", measured, _timed(lambda: ask_again(bench, ledger)))
        close_ledger(Path(folder) / "ledger.sqlite")


def _row(name: str, measured: Sequence[Measured], without_dagster: float) -> None:
    wall = sum(one.wall for one in measured)
    cpu = sum(one.cpu for one in measured)
    rows = measured[0].rows
    share = max(0.0, 1 - without_dagster / wall)
    print(
        f"| {name} | {rows / wall:,.0f} | {1000 * cpu / rows:.3f} | {share:.0%} | "
        f"{peak_mb():.0f} MB |",
        flush=True,
    )


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _first_half(bench: Bench) -> None:
    """The same work without Dagster, into another lake."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        snapshot = take_snapshot(lake, bench.pipeline.dataset, bench.source).snapshot
        for partition in snapshot.partitions:
            write_raw_rows(lake, snapshot, partition.key)
            write_prompts(bench.pipeline, lake, partition.key)


def ask_again(bench: Bench, ledger: Ledger) -> None:
    """Ask for rows that are all paid, and write their files, without Dagster."""
    lake = Lake(bench.pipeline.settings().lake_root)
    engine = Engine(ledger, bench.pipeline.provider, context(), EngineLimits())
    chunks = engine.run(feeds(bench.pipeline, lake, bench.partitions()))
    write_partitions(bench.pipeline, lake, chunks, TRIO, lambda *_: None)


def pay_all(ledger: Ledger, lake: Lake, partitions: Sequence[str]) -> None:
    """Put an answer for every prompt into the ledger."""
    for partition in partitions:
        pay(ledger, lake.read(NAME, "prompts", partition, ["answer_key"]).column(0).to_pylist())
