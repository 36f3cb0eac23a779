"""200,000 rows: how fast the stages are that ask nobody, and what Dagster itself takes of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.setup import Bench, Measured, peak_mb
from ondine_dagster.assets.outcomes import feeds
from ondine_dagster.assets.partition_counts import TRIO
from ondine_dagster.assets.prompts import write_prompts
from ondine_dagster.assets.raw_rows import write_raw_rows
from ondine_dagster.assets.responses import write_partitions
from ondine_dagster.engine.engine import Engine, EngineLimits
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.ledger.records import (
    Ask,
    NewAnswer,
    RequestContext,
    Reservation,
    Settlement,
)
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster.llm.provider import Usage, Verdict
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import take_snapshot

_ANSWER = '{"sentiment":"positive","score":7}'
_CONTEXT = RequestContext(
    dataset="bench",
    run_scope="seed",
    provider="openai_compatible",
    identity="openai_compatible/gpt-4o-mini",
    base_url="http://127.0.0.1:1/v1",
    model="gpt-4o-mini",
    ceiling=1024,
    price_version="declared",
)


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rows, "http://127.0.0.1:1/v1")
        print(f"\n## {rows} rows, 5,000 per partition\n")
        print("| stages | rows/s | CPU ms per row | Dagster's share | peak memory |")
        print("|---|---|---|---|---|")
        measured = [bench.materialize("snapshot"), bench.materialize("raw_rows", "prompts")]
        _row("snapshot to prompts", measured, _timed(lambda: _first_half(bench)))
        ledger = open_ledger(Path(folder) / "ledger.sqlite")
        _pay_all(ledger, Lake(Path(folder) / "lake"), bench.partitions())
        measured = [bench.materialize(*TRIO)]
        _row(
            "responses to results, all paid", measured, _timed(lambda: _second_half(bench, ledger))
        )
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


def _second_half(bench: Bench, ledger: Ledger) -> None:
    lake = Lake(bench.pipeline.settings().lake_root)
    engine = Engine(ledger, bench.pipeline.provider, _CONTEXT, EngineLimits())
    chunks = engine.run(feeds(bench.pipeline, lake, bench.partitions()))
    write_partitions(bench.pipeline, lake, chunks, TRIO, lambda *_: None)


def _pay_all(ledger: Ledger, lake: Lake, partitions: Sequence[str]) -> None:
    """Put an answer for every prompt into the ledger, as if a run had paid them."""
    for partition in partitions:
        keys = lake.read("bench", "prompts", partition, ["answer_key"]).column(0).to_pylist()
        asked = [
            Reservation(new_id(), _CONTEXT, (Ask(key, "row"),), 1000, 100, 500) for key in keys
        ]
        wait_for(ledger.submit, asked)
        ledger.settle_all([_settlement(item) for item in asked])


def _settlement(item: Reservation) -> Settlement:
    answer = NewAnswer(item.asks[0].answer_key, Verdict.OK, _ANSWER, 30)
    return Settlement(
        item.attempt,
        "settled",
        cost=30,
        cost_source="computed",
        usage=Usage(120, 12),
        model_served="gpt-4o-mini",
        answers=(answer,),
    )
