"""Packs of several processes, and of processes that die: each row is paid once, or explained."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.end_to_end import commands
from ondine_dagster_tests.end_to_end.test_kills import Account
from ondine_dagster_tests.workbench import declaration, numbered

pytestmark = pytest.mark.slow

ROWS = 300
FIELDS = {"fields": {"token": {"type": "string"}, "score": {"type": "integer"}}}


def dataset(
    folder: Path, simulator: Simulator, name: str, first: int, rows: int, size: int | str
) -> Path:
    sections: dict[str, Any] = {
        "name": name,
        "source": {"path": f"{name}.csv", "key": "id"},
        "partitions": {"rows": 100},
        "output": FIELDS,
        "batching": {"rows_per_request": size},
        "limits": {"concurrency": 4},
    }
    rows_of_it = numbered(rows, first=first)
    return commands.write_dataset(folder, declaration(simulator, **sections), rows_of_it)


def unknown_rows(account: Account) -> Counter[str]:
    """Return the rows of requests of unknown outcome, named as the simulator's bill does."""
    statement = (
        "SELECT row_key FROM asks JOIN attempts ON asks.attempt = attempts.id "
        "WHERE attempts.state = 'unknown'"
    )
    return Counter("t" + row.row_key[1:] for row in account.query(statement))


@pytest.mark.behaviour("E-1c")
def test_processes_with_packs_of_other_sizes_pay_what_they_share_once(
    tmp_path: Path, data_dir: Path, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=20, jitter_ms=20)
    simulator.fail(FaultPlan(seed=5, rates={"pack_missing times=1": 0.2, "429 times=1": 0.1}))
    datasets: dict[str, tuple[int, int | str]] = {"a": (0, 25), "b": (100, 7), "c": (50, "auto")}
    files = [
        dataset(tmp_path / name, simulator, name, first, 200, size)
        for name, (first, size) in datasets.items()
    ]
    started = [commands.start(data_dir, "run", file) for file in files]
    for command in started:
        ended = command.wait()
        assert ended.code == 0, ended.output
    for name, (first, _) in datasets.items():
        tokens = [row["token"] for row in Account(data_dir, name).results()]
        assert tokens == [f"t{n}" for n in range(first, first + 200)]
    account = Account(data_dir)
    # what one of them lost may be asked by another; an answer is there once
    answers = "SELECT row_key FROM asks WHERE verdict = 'ok'"
    assert Counter(row.row_key for row in account.query(answers)) == Counter(
        f"r{n}" for n in range(ROWS)
    )
    total = account.query("SELECT sum(cost) AS paid FROM attempts")[0].paid
    assert total == simulator.bill.totals.picodollars


@pytest.mark.behaviour("A-30")
@pytest.mark.parametrize("where", ["before send", "before settle", "after commit"])
def test_a_death_with_packs_in_flight_repeats_only_their_rows(
    tmp_path: Path, data_dir: Path, simulator: Simulator, where: str
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=60, jitter_ms=40)
    file = dataset(tmp_path / "notes", simulator, "notes", 0, ROWS, 10)
    ended = commands.start_killing(data_dir, where, 12, "run", file).wait()
    assert ended.code == -signal.SIGKILL, ended.output
    ended = commands.run(data_dir, "run", file)
    assert ended.code == 0, ended.output
    account = Account(data_dir)
    assert [row["token"] for row in account.results()] == [f"t{n}" for n in range(ROWS)]
    unknown = unknown_rows(account)
    assert 0 < unknown.total() <= 4 * 10
    asked = simulator.bill.snapshot().rows
    assert len(asked) == ROWS
    assert all(times - 1 <= unknown[row] for row, times in asked.items())
    if where == "before settle":
        assert asked.total() > ROWS
