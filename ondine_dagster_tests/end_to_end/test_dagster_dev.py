"""A real `dagster dev` on somebody else's project: the page's backfills, red and green.

Slow by nature, as Dagster's daemon wakes up every 30 seconds: all of it is one test.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.unknowns import unknown_attempts
from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.end_to_end import commands
from ondine_dagster_tests.end_to_end.projects import dagster_dev, make_project
from ondine_dagster_tests.workbench import (
    PARTITIONED,
    REJECTED,
    RESPONSES,
    RESULTS,
    declaration,
    numbered,
    write_rows,
)

KEYS = [f"rows-{n:05}" for n in range(8)]
RED = ["rows-00002", "rows-00005"]


def _project(tmp_path: Path, simulator: Simulator) -> Path:
    rows = numbered(80)
    for n in (20, 29, 55):
        rows[n]["text"] = f"[[token=t{n}]] [[fault=reset_after times=1]] row {n}"
    datasets = [
        declaration(simulator, name="notes", limits={"max_unknown": 0}),
        declaration(simulator, name="more_notes", source={"path": "more.csv", "key": "id"}),
    ]
    project = make_project(tmp_path / "project", datasets)
    write_rows(project / "notes.csv", rows)
    write_rows(project / "more.csv", numbered(5))
    return project


def _resolve_unknowns(data: Path) -> int:
    """Say that nothing of unknown outcome was billed; return how much that was."""
    ledger = Ledger(data / "ledger.sqlite")
    with ledger.database.read() as connection:
        unknown = [one.id for one in unknown_attempts(connection)]
    ledger.close()
    resolved = commands.run(data, "ledger", "resolve", *unknown, "--free")
    assert resolved.code == 0, resolved.output
    return len(unknown)


@pytest.mark.behaviour("E-10")
def test_a_backfill_is_green_where_it_is_complete_and_its_retry_pays_what_is_missing(
    tmp_path: Path, data_dir: Path, simulator: Simulator
) -> None:
    project = _project(tmp_path, simulator)
    lake = Lake(data_dir / "lake")
    with dagster_dev(project, tmp_path) as dagster:
        assert {"notes/results", "more_notes/results"} <= dagster.asset_keys()

        dagster.materialize([["notes", "snapshot"], ["more_notes", "snapshot"]])
        assert dagster.partition_stats(["more_notes", RESULTS])["numPartitions"] == 1

        first = dagster.backfill([["notes", asset] for asset in PARTITIONED], KEYS)
        assert dagster.wait_for_backfill(first) == "COMPLETED_FAILED"
        for asset in (RESPONSES, RESULTS, REJECTED):
            assert dagster.partition_stats(["notes", asset]) == {
                "numMaterialized": 6,
                "numFailed": 2,
                "numPartitions": 8,
            }
        assert sum(lake.read("notes", RESULTS, key).num_rows for key in RED) == 17
        assert sum(lake.read("notes", REJECTED, key).num_rows for key in RED) == 3
        charged = simulator.bill.totals.charged
        assert charged == 80

        assert _resolve_unknowns(data_dir) == 3
        written = {key: lake.path("notes", RESULTS, key).stat().st_mtime_ns for key in KEYS}
        second = dagster.retry(first)
        assert dagster.wait_for_backfill(second) == "COMPLETED_SUCCESS"
        assert dagster.partition_stats(["notes", RESULTS])["numMaterialized"] == 8
        assert dagster.partition_stats(["notes", RESULTS])["numFailed"] == 0
        touched = {
            key
            for key in KEYS
            if lake.path("notes", RESULTS, key).stat().st_mtime_ns != written[key]
        }
        assert sorted(touched) == RED
        assert simulator.bill.totals.charged == charged + 3
        assert len(dagster.runs_of(second)) == 2

        dagster.materialize([["notes", "report"]])

    rows = [row for key in KEYS for row in lake.read("notes", RESULTS, key).to_pylist()]
    with open(project / "notes.csv", newline="", encoding="utf-8") as file:
        assert [row["id"] for row in rows] == [row["id"] for row in csv.DictReader(file)]
    assert [row["response"] for row in rows] == [f"t{n}" for n in range(80)]
