"""A dataset on a bench: source, simulator, Dagster instance, and runs as a person starts them.

Money is counted on the simulator's bill, never by asking the product.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from sqlalchemy.engine import Row

from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.shared.partitions import partitions_def, range_tags, ranges
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import (
    DatasetStatus,
    PartitionState,
    dataset_status,
)
from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.instances import in_memory

RAW, PROMPTS, RESPONSES, RESULTS, REJECTED = (
    "raw_rows",
    "prompts",
    "responses",
    "results",
    "rejected_rows",
)
PARTITIONED = (RAW, PROMPTS, RESPONSES, RESULTS, REJECTED)
TO_RUN = (PartitionState.MISSING, PartitionState.FAILED, PartitionState.CHANGED)

Rows = Sequence[Mapping[str, Any]]


def declaration(simulator: Simulator, **sections: Any) -> dict[str, Any]:
    """Return the attributes of a dataset whose prompt is its column `text`, plain text answered.

    Rejected rows make no partition red, unless `limits` say so: most tests are about other things.
    """
    limits = {"max_rejected": 1, **sections.pop("limits", {})}
    return {
        "name": "notes",
        "source": {"path": "notes.csv", "key": "id"},
        "partitions": {"rows": 10},
        "prompt": {"template": "{{ text }}"},
        "llm": {
            "provider": "openai_compatible",
            "name": "demo-model",
            "base_url": simulator.base_url,
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
        },
        "limits": limits,
        **sections,
    }


def numbered(count: int, text: str = "[[token=t{n}]] row {n}", first: int = 0) -> list[Any]:
    """Return rows `id`, `text`; `{n}` in the text is the number of the row."""
    return [
        {"id": f"r{n}", "text": text.replace("{n}", str(n))} for n in range(first, first + count)
    ]


def write_rows(path: Path, rows: Rows) -> None:
    """Write a CSV source."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Bench:
    """The dataset, declared and run; `folder` holds the source, `data` is the data folder."""

    def __init__(
        self, attributes: Mapping[str, Any], folder: Path, data: Path, instance: dg.DagsterInstance
    ) -> None:
        self.folder = folder
        self.data = data
        self.instance = instance
        self.declare(attributes)

    def declare(self, attributes: Mapping[str, Any]) -> None:
        """Put another declaration in the place of the present one."""
        self.dataset = Dataset.model_validate(attributes)
        declared_in = self.folder / "defs.yaml"
        self.pipeline = Pipeline(self.dataset, declared_in, self.folder)
        self.definitions = build_definitions(
            self.dataset, declared_in=declared_in, project_root=self.folder
        )

    @property
    def lake(self) -> Lake:
        return Lake(self.data / "lake")

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.data / "ledger.sqlite")

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.dataset.name, asset])

    def partitions(self) -> list[str]:
        """Return the partitions of the current snapshot, in order."""
        return [one.key for one in self.pipeline.snapshot(self.lake).partitions]

    # running

    def snapshot(self) -> dg.ExecuteInProcessResult:
        return self._materialize(["snapshot"], {}, raise_on_error=True)

    def report(self) -> dg.ExecuteInProcessResult:
        return self._materialize(["report"], {}, raise_on_error=True)

    def run(
        self,
        first: str | None = None,
        last: str | None = None,
        *,
        assets: Sequence[str] = PARTITIONED,
        tags: Mapping[str, str] | None = None,
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Run one range of partitions (all without arguments, one with one) in one run."""
        keys = self.partitions()
        begin = first or keys[0]
        end = last or first or keys[-1]
        tags = {**range_tags(self.pipeline, begin, end), **(tags or {})}
        return self._materialize(assets, tags, raise_on_error=raise_on_error)

    def retry(
        self,
        first: str | None = None,
        last: str | None = None,
        *,
        classes: str = "all",
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Ask again for rejected rows, as the job does."""
        tags = {"ondine/retry": classes}
        assets = (RESPONSES, RESULTS, REJECTED)
        return self.run(first, last, assets=assets, tags=tags, raise_on_error=raise_on_error)

    def run_missing(self) -> list[str]:
        """Snapshot, then run what is missing, failed or changed; return those partitions."""
        self.snapshot()
        wanted = self.status().in_state(*TO_RUN)
        for first, last in ranges(self.pipeline, self.instance, wanted, len(wanted)):
            self.run(first, last)
        return wanted

    def _materialize(
        self, assets: Sequence[str], tags: Mapping[str, str], *, raise_on_error: bool
    ) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            list(self.definitions.assets or ()),
            selection=[self.key(asset) for asset in assets],
            instance=self.instance,
            resources=dict(self.definitions.resources or {}),
            tags=dict(tags),
            raise_on_error=raise_on_error,
        )

    def lose_answers(self) -> None:
        """Put a ledger in place that knows the dataset and no answer, as from an old backup."""
        path = self.data / "ledger.sqlite"
        close_ledger(path)
        for file in self.data.glob("ledger.sqlite*"):
            file.unlink()
        shutil.rmtree(self.data / "ledger.d")
        open_ledger(path).bind_dataset(self.pipeline.name, self.pipeline.declared_in)

    # looking

    def status(self) -> DatasetStatus:
        return dataset_status(self.pipeline, self.lake)

    def states(self) -> dict[str, str]:
        return {one.partition: str(one.state) for one in self.status().partitions}

    def table(self, asset: str, keys: Sequence[str] | None = None) -> pa.Table:
        """Return the files of all partitions (or of `keys`), one after the other."""
        wanted = self.partitions() if keys is None else keys
        return pa.concat_tables([self.lake.read(self.dataset.name, asset, k) for k in wanted])

    def rows(self, asset: str, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        return list(self.table(asset, keys).to_pylist())

    def partitions_in_ui(self, asset: str) -> tuple[set[str], set[str]]:
        """Return the green and the red partitions of `asset`, as the UI counts them."""
        definition = partitions_def(self.pipeline)
        status = get_and_update_asset_status_cache_value(
            self.instance, self.key(asset), definition, self.instance
        )
        assert status is not None
        with_keys = {"partitions_def": definition}
        green = status.deserialize_materialized_partition_subsets(**with_keys)
        red = status.deserialize_failed_partition_subsets(**with_keys)
        failed = set(red.get_partition_keys())
        return set(green.get_partition_keys()) - failed, failed

    def events(self, asset: str) -> list[dg.EventLogRecord]:
        """Return the materializations of `asset`, oldest first."""
        records = self.instance.fetch_materializations(self.key(asset), limit=1000).records
        return list(reversed(records))

    def attempts(self, columns: str = "*", where: str = "1") -> Sequence[Row[Any]]:
        """Return requests of the ledger."""
        statement = f"SELECT {columns} FROM attempts WHERE {where} ORDER BY id"
        with self.ledger.database.read() as connection:
            return connection.exec_driver_sql(statement).all()

    def contradictions(self) -> list[str]:
        """Return what `ledger check` finds."""
        with self.ledger.database.read() as connection:
            return check(connection)


MakeBench = Callable[..., Bench]
# they redirect the output of the whole process, which two threads cannot do at once
_NO_COMPUTE_LOGS = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return a Dagster instance in memory; on disk for a test that is marked `two_threads`.

    Threads that share SQLite in memory lock each other's tables out at once, without a wait.
    """
    if request.node.get_closest_marker("two_threads") is None:
        made = in_memory()
    else:
        home = tmp_path / "dagster"
        home.mkdir()
        made = dg.DagsterInstance.local_temp(str(home), _NO_COMPUTE_LOGS)
    with made:
        yield made


@pytest.fixture
def charged(simulator: Simulator) -> Callable[[], int]:
    """Return a function that says how many requests were billed since it was last called."""
    seen = 0

    def since() -> int:
        nonlocal seen
        before, seen = seen, simulator.bill.totals.charged
        return seen - before

    return since


@pytest.fixture
def make_bench(
    tmp_path: Path,
    data_dir: Path,
    instance: dg.DagsterInstance,
    simulator: Simulator,
) -> Iterator[MakeBench]:
    """Make benches: `make_bench(rows, **sections of the declaration)`."""
    with ExitStack() as stack:

        def make(rows: Rows | None = None, **sections: Any) -> Bench:
            attributes = declaration(simulator, **sections)
            if rows is not None:
                write_rows(tmp_path / attributes["source"]["path"], rows)
            return Bench(attributes, tmp_path, data_dir, instance)

        stack.callback(close_ledger, data_dir / "ledger.sqlite")
        yield make
