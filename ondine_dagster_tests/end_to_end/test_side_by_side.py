"""Several datasets in one code location, declared in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ondine_dagster import Dataset, dataset_definitions
from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.workbench import PARTITIONED, RESULTS, declaration, numbered, write_rows


@pytest.fixture
def project(tmp_path: Path, simulator: Simulator) -> dg.Definitions:
    """Return two datasets of one source, which ask the same questions."""
    write_rows(tmp_path / "notes.csv", numbered(20))
    place = tmp_path / "definitions.py"
    datasets = [
        Dataset.model_validate(declaration(simulator, name=name)) for name in ("first", "second")
    ]
    merged = dg.Definitions.merge(*(dataset_definitions(one, place) for one in datasets))
    dg.Definitions.validate_loadable(merged)
    return merged


def _run(project: dg.Definitions, instance: dg.DagsterInstance, name: str) -> None:
    def materialize(assets: tuple[str, ...], **options: Any) -> None:
        assert dg.materialize(
            list(project.assets or ()),
            selection=[dg.AssetKey([name, asset]) for asset in assets],
            instance=instance,
            resources=dict(project.resources or {}),
            **options,
        ).success

    materialize(("snapshot",))
    for key in instance.get_dynamic_partitions(name):
        materialize(PARTITIONED, partition_key=key)
    materialize(("report",))


def test_two_datasets_keep_apart_and_pay_a_common_question_once(
    project: dg.Definitions,
    instance: dg.DagsterInstance,
    simulator: Simulator,
    data_dir: Path,
) -> None:
    lake = Lake(data_dir / "lake")
    _run(project, instance, "first")
    assert simulator.bill.totals.charged == 20
    assert lake.partitions("second", RESULTS) == []
    _run(project, instance, "second")
    assert simulator.bill.totals.charged == 20
    for name in ("first", "second"):
        keys = lake.partitions(name, RESULTS)
        rows = [row for key in keys for row in lake.read(name, RESULTS, key).to_pylist()]
        assert [row["response"] for row in rows] == [f"t{n}" for n in range(20)]
    close_ledger(data_dir / "ledger.sqlite")


def test_one_name_for_two_declarations_is_refused_before_money(
    tmp_path: Path, simulator: Simulator, instance: dg.DagsterInstance, data_dir: Path
) -> None:
    write_rows(tmp_path / "notes.csv", numbered(5))
    dataset = Dataset.model_validate(declaration(simulator))
    for name in ("a.py", "b.py"):
        (tmp_path / name).touch()
    _run(dataset_definitions(dataset, tmp_path / "a.py"), instance, "notes")
    paid = simulator.bill.totals.charged
    with pytest.raises(dg.Failure, match=r"Two declarations are called `notes`: .*a\.py and"):
        _run(dataset_definitions(dataset, tmp_path / "b.py"), instance, "notes")
    assert simulator.bill.totals.charged == paid
    close_ledger(data_dir / "ledger.sqlite")
