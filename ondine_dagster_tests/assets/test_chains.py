"""A dataset that reads the results of another one, or the table of any asset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.snapshot import upstream_gap
from ondine_dagster.cli.target import upstream_of
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.io_manager import DuckDBIOManager
from ondine_dagster_tests.assets.automatic import Daemon
from ondine_dagster_tests.spec.declarations import attributes, only_problem
from ondine_dagster_tests.workbench import (
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
    write_rows,
)

SECOND = {
    "name": "second",
    "source": {"dataset": "notes"},
    "prompt": {"template": "[[token=again-{{ response }}]] {{ text }}"},
    "output": {"column": "verdict"},
}


@pytest.fixture
def chain(make_bench: MakeBench) -> tuple[Bench, Bench]:
    """Return a dataset that has not run yet, and one whose source it is."""
    first = make_bench(numbered(25))
    return first, make_bench(**SECOND)


def test_the_results_of_one_dataset_are_the_source_of_another(
    chain: tuple[Bench, Bench], charged: Callable[[], int]
) -> None:
    first, second = chain
    first.run_missing()
    assert second.run_missing() == ["rows-00000", "rows-00001", "rows-00002"]
    rows = second.rows(RESULTS)
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(25)]
    assert [row["_row_key"] for row in rows] == [f"r{n}" for n in range(25)]
    assert [row["response"] for row in rows] == [f"t{n}" for n in range(25)]
    assert [row["verdict"] for row in rows] == [f"again-t{n}" for n in range(25)]
    assert charged() == 50
    assert upstream_gap(second.pipeline, second.lake) is None
    assert second.run_missing() == []

    # what changes upstream is missing here, and only what is asked anew costs
    changed = [*numbered(3, "[[token=new{n}]] other {n}"), *numbered(22, first=3)]
    write_rows(first.folder / "notes.csv", changed[1:])
    first.run_missing()
    assert charged() == 2
    assert second.run_missing() == ["rows-00000"]
    assert charged() == 2
    rows = second.rows(RESULTS)
    assert [row["verdict"] for row in rows[:3]] == ["again-new1", "again-new2", "again-t3"]
    assert len(rows) == 24


def test_what_upstream_has_not_brought_is_said_with_the_command(
    chain: tuple[Bench, Bench], charged: Callable[[], int], make_bench: MakeBench
) -> None:
    first, second = chain
    with pytest.raises(OndineError, match=r"Run it first, .*: ondine-dagster run notes"):
        second.pipeline.source_columns()
    first.snapshot()
    with pytest.raises(OndineError, match="no partition of notes has results"):
        second.pipeline.source_columns()
    first.run("rows-00001")
    second.snapshot()
    gap = str(upstream_gap(second.pipeline, second.lake))
    assert gap.startswith("The source notes has 15 rows without an outcome yet. Run it first")
    assert gap.endswith("ondine-dagster run notes")
    assert second.run_missing() == ["rows-00000"]
    assert [row["id"] for row in second.rows(RESULTS)] == [f"r{n}" for n in range(10, 20)]

    write_rows(first.folder / "notes.csv", [*numbered(10, "[[fault=refusal]]"), *numbered(15)[10:]])
    first.snapshot()
    assert "1 partition whose rows have changed since" in str(
        upstream_gap(second.pipeline, second.lake)
    )
    first.run()
    gap = str(upstream_gap(second.pipeline, second.lake))
    assert "10 rejected rows, which are left out here" in gap
    assert gap.endswith("ondine-dagster retry notes")


@pytest.mark.slow
def test_skipped_rows_and_fields_of_every_type_arrive_as_they_are(make_bench: MakeBench) -> None:
    fields = {
        "label": {"type": "string"},
        "score": {"type": "integer"},
        "sure": {"type": "boolean"},
    }
    rows = [{**row, "n": n} for n, row in enumerate(numbered(6, "row {n}"))]
    source = {"path": "notes.csv", "key": "id", "types": {"n": "integer"}}
    first = make_bench(rows, source=source, output={"fields": fields}, when="n % 2 == 0")
    first.run_missing()
    second = make_bench(
        **{**SECOND, "prompt": {"template": "{{ label }}"}, "when": "label != none"}
    )
    second.run_missing()
    table = second.table(RESULTS)
    types = {"n": pa.int64(), "label": pa.string(), "score": pa.int64(), "sure": pa.bool_()}
    assert {name: table.schema.field(name).type for name in types} == types
    outcomes = [row["_outcome"] for row in table.to_pylist()]
    assert outcomes == ["ok", "skipped"] * 3


def test_the_lineage_reaches_from_results_to_snapshot(chain: tuple[Bench, Bench]) -> None:
    first, second = chain
    both = dg.Definitions.merge(first.definitions, second.definitions)
    graph = both.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["second", "snapshot"])).parent_keys == {
        dg.AssetKey(["notes", "results"])
    }
    assert not second.dataset.source.path


def test_the_sensor_follows_the_results_upstream(make_bench: MakeBench) -> None:
    first, second = make_bench(numbered(2)), make_bench(**SECOND)
    daemon, watched = Daemon(second), "second"
    assert not daemon.asks(f"{watched}__watch")
    assert "no file is there" in daemon.skipped
    first.run_missing()
    assert not daemon.asks(f"{watched}__watch")
    assert daemon.asks(f"{watched}__watch")
    assert not daemon.asks(f"{watched}__watch")
    write_rows(first.folder / "notes.csv", numbered(3))
    first.run_missing()
    assert not daemon.asks(f"{watched}__watch")
    assert daemon.asks(f"{watched}__watch")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"dataset": "reviews"}, "this very dataset"),
        ({"dataset": "No Name"}, "must be the name of another dataset"),
        ({"dataset": "other", "path": "a.csv"}, "has path and dataset; it must have one of them"),
        ({"asset": "a//b"}, "must be the key of an asset"),
        ({"dataset": "other", "types": {"a": "text"}}, "is for CSV files"),
        ({"asset": "a/b", "sheet": "x"}, "but a table is no Excel file"),
    ],
)
def test_a_strange_source_is_refused(source: dict[str, Any], said: str) -> None:
    assert said in only_problem(attributes(source=source)).message


def _asset(table: Any, key: str = "warehouse/orders", **options: Any) -> dg.AssetsDefinition:
    @dg.asset(key=key.split("/"), io_manager_key="memory", **options)
    def made(context) -> Any:  # type: ignore[no-untyped-def]
        return table(context) if callable(table) else table

    return made


def run_with(bench: Bench, *assets: dg.AssetsDefinition, **how: Any) -> dg.ExecuteInProcessResult:
    """Materialize the assets, then the snapshot of the bench's dataset."""
    memory = dg.mem_io_manager
    everything = [*assets, *(bench.definitions.assets or ())]
    return dg.materialize(
        everything,
        selection=[*(asset.key for asset in assets), bench.key("snapshot")],
        instance=bench.instance,
        resources={**dict(bench.definitions.resources or {}), "memory": memory},
        **how,
    )


def test_the_table_of_any_asset_is_a_source(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(name="orders", source={"asset": "warehouse/orders", "key": "id"})
    with pytest.raises(OndineError, match="materialize orders/snapshot there"):
        bench.pipeline.source()
    frame = pd.DataFrame(numbered(3)).assign(amount=pd.array([1, None, 3], "Int64"))
    assert run_with(bench, _asset(frame)).success
    # the command line has no IO manager: it works on the rows that were loaded last
    bench.definitions = build_definitions(
        bench.dataset,
        declared_in=bench.folder / "defs.yaml",
        project_root=bench.folder,
        loads_asset=False,
    )
    bench.run_missing()
    assert charged() == 3
    rows = bench.rows(RESULTS)
    found = [(row["id"], row["amount"], row["response"]) for row in rows]
    assert found == [("r0", 1, "t0"), ("r1", None, "t1"), ("r2", 3, "t2")]


def test_what_is_no_table_is_named_with_its_asset(make_bench: MakeBench) -> None:
    bench = make_bench(name="orders", source={"asset": "warehouse/orders"})
    result = run_with(bench, _asset("text"), raise_on_error=False)
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    assert "source.asset: warehouse/orders: str is no table" in str(
        failure.step_failure_data.user_failure_data
    )


@pytest.mark.slow
def test_the_partitions_of_an_upstream_asset_come_together(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench(name="orders", source={"asset": "days", "key": "id"})
    days = dg.StaticPartitionsDefinition(["b", "a"])

    def made(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"id": [context.partition_key], "text": ["x"]})

    manager = DuckDBIOManager(root=str(bench.data / "lake"))
    upstream = _asset(made, "days", partitions_def=days)
    for key in ("a", "b"):
        dg.materialize(
            [upstream], instance=instance, partition_key=key, resources={"memory": manager}
        )
    everything = [upstream, *(bench.definitions.assets or ())]
    result = dg.materialize(
        everything,
        selection=[bench.key("snapshot")],
        instance=instance,
        resources={**dict(bench.definitions.resources or {}), "memory": manager},
    )
    assert result.success
    assert bench.pipeline.snapshot(bench.lake).rows == 2


def test_the_sensor_follows_an_upstream_asset(make_bench: MakeBench) -> None:
    bench = make_bench(name="orders", source={"asset": "warehouse/orders", "key": "id"})
    orders = _asset(pd.DataFrame(numbered(1)))
    memory = {"memory": dg.mem_io_manager}
    more = dg.Definitions(assets=[orders], resources=memory)
    daemon, watched = Daemon(bench, dg.Definitions.merge(bench.definitions, more)), "orders"
    assert not daemon.asks(f"{watched}__watch")
    run_with(bench, orders)
    assert not daemon.asks(f"{watched}__watch")
    assert daemon.asks(f"{watched}__watch")
    assert not daemon.asks(f"{watched}__watch")


def test_one_dataset_as_declared(simulator: Any) -> None:
    dataset = Dataset.model_validate(declaration(simulator, source={"dataset": "a", "key": "id"}))
    assert dataset.source_pattern is None


def test_the_steps_before_a_dataset_are_found_from_the_first(
    tmp_path: Path, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def declared(name: str, source: dict[str, str]) -> str:
        whole = declaration(simulator, name=name, source=source)
        return yaml.safe_dump({"type": "ondine_dagster.LLMDataset", "attributes": whole})

    steps = [("a", {"path": "a.csv"}), ("b", {"dataset": "a"}), ("c", {"dataset": "b"})]
    file = tmp_path / "steps.yaml"
    file.write_text("---\n".join(declared(*one) for one in steps))
    assert upstream_of(f"{file}#c") == [f"{file}#a", f"{file}#b"]
    assert upstream_of(f"{file}#a") == []
    ring = [("a", {"dataset": "b"}), ("b", {"dataset": "a"})]
    file.write_text("---\n".join(declared(*one) for one in ring))
    with pytest.raises(OndineError, match="b reads a reads b: there is no first step"):
        upstream_of(f"{file}#b")
    file.write_text(declared("b", {"dataset": "elsewhere"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OndineError, match="elsewhere"):
        upstream_of(str(file))
