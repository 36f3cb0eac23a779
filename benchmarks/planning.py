"""The command line: `plan` on a big table, and how long `run` takes to its first request."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.provider import Provider
from benchmarks.reviews import NAME, declaration, write_reviews
from benchmarks.usage import megabytes
from ondine_dagster.settings import DATA_DIR, demo_environment

_NOBODY = "http://127.0.0.1:1/v1"


@dataclass(frozen=True)
class _Ended:
    """What a command took; `began` in seconds since 1970."""

    began: float
    seconds: float
    peak_mb: float


def main(rows: int = 100_000, run_rows: int = 1000, runs: int = 3) -> None:
    print(f"\n## `ondine-dagster plan` on {rows:,} rows\n")
    print("| what the ledger holds | seconds | peak memory |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _declare(folder, NAME, rows, _NOBODY)
        _row("nothing", _command(folder, "plan", NAME))
        # a small parent: on Linux a child's peak is at least that of its parent
        paying = multiprocessing.get_context("spawn").Process(target=_pay_half, args=(folder, rows))
        paying.start()
        paying.join()
        assert paying.exitcode == 0
        _row("answers for half of the rows", _command(folder, "plan", NAME))
    print(f"\n## `ondine-dagster run` on {run_rows:,} rows\n")
    print("| run | seconds to the first request | seconds in all | peak memory |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for number in range(runs):
            which = "another dataset in it" if number else "first in a new data folder"
            _run_row(which, Path(name), number, run_rows)


def _row(name: str, ended: _Ended) -> None:
    print(f"| {name} | {ended.seconds:.1f} | {ended.peak_mb:.0f} MB |", flush=True)


def _run_row(which: str, folder: Path, number: int, rows: int) -> None:
    name = f"{NAME}_{number}"
    with Provider() as provider:
        _declare(folder, name, rows, provider.base_url, seed=number)
        ended = _command(folder, "run", name)
        bill = provider.read().bill
    assert bill.answered == rows and bill.first_at is not None
    print(
        f"| {which} | {bill.first_at - ended.began:.2f} | {ended.seconds:.1f} | "
        f"{ended.peak_mb:.0f} MB |",
        flush=True,
    )


def _declare(folder: Path, name: str, rows: int, base_url: str, seed: int = 1) -> None:
    source = folder / f"{name}.csv"
    write_reviews(source, rows, seed)
    attributes = declaration(source, base_url, concurrency=100, name=name)
    document = {"type": "ondine_dagster.LLMDataset", "attributes": attributes}
    # JSON is YAML
    (folder / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")


def _command(folder: Path, command: str, name: str) -> _Ended:
    """Run `ondine-dagster` on a dataset of `folder` to its end."""
    began, started = time.time(), time.perf_counter()
    with (folder / "said.txt").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ondine_dagster.cli.main", command, f"{name}.yaml"],
            cwd=folder,
            env={**demo_environment(), DATA_DIR: str(folder)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"`{command}` ended with {process.returncode}: {said.read()}")
    return _Ended(began, seconds, megabytes(usage))


def _pay_half(folder: Path, rows: int) -> None:
    """Put answers for every other partition into the ledger, as if a run had paid them."""
    from benchmarks.big_table import pay_all
    from benchmarks.setup import Bench
    from ondine_dagster.ledger.ledger import close_ledger, open_ledger
    from ondine_dagster.storage.lake import Lake

    bench = Bench(folder, rows, _NOBODY)
    bench.materialize("snapshot")
    bench.materialize("raw_rows", "prompts")
    path = folder / "ledger.sqlite"
    pay_all(open_ledger(path), Lake(folder / "lake"), bench.partitions()[::2])
    close_ledger(path)
