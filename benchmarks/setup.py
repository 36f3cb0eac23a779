"""A data folder with a dataset of made-up reviews, its assets and a Dagster instance."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.reviews import NAME, declaration, write_reviews
from ondine_dagster.assets.factory import build_assets
from ondine_dagster.assets.resources import resources
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.spec import Dataset


@dataclass(frozen=True)
class Measured:
    """Seconds of wall clock and of CPU for `rows` rows."""

    rows: int
    wall: float
    cpu: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.wall

    @property
    def cpu_ms_per_row(self) -> float:
        return 1000 * self.cpu / self.rows


class Bench:
    """A dataset of made-up reviews in `folder`, its assets and a Dagster instance on disk."""

    def __init__(
        self,
        folder: Path,
        rows: int,
        base_url: str,
        concurrency: int = 100,
        per_partition: int = 5000,
        rows_per_request: int = 1,
    ) -> None:
        self.source = folder / "reviews.csv"
        write_reviews(self.source, rows)
        attributes = declaration(self.source, base_url, concurrency)
        attributes["partitions"] = {"rows": per_partition}
        if rows_per_request > 1:
            attributes["batching"] = {"rows_per_request": rows_per_request}
        self._declare(folder, rows, attributes)

    @classmethod
    def of(cls, folder: Path, rows: int, attributes: Mapping[str, Any]) -> Bench:
        """Return a dataset of so many rows, as declared under the name of the others."""
        bench = cls.__new__(cls)
        bench._declare(folder, rows, attributes)
        return bench

    def _declare(self, folder: Path, rows: int, attributes: Mapping[str, Any]) -> None:
        logging.disable(logging.INFO)
        os.environ["ONDINE_DATA_DIR"] = str(folder)
        self.rows = rows
        dataset = Dataset.model_validate(attributes)
        self.pipeline = Pipeline(dataset, folder / "bench.yaml", folder)
        self._assets = build_assets(self.pipeline)
        self._resources = dict(resources(folder))
        home = folder / "dagster_home"
        home.mkdir()
        self._instance = dg.DagsterInstance.local_temp(str(home))

    def slow_records(self, seconds: float) -> None:
        """Let Dagster take so long to record a line of a log; its own events stay as they are."""
        record = self._instance.handle_new_event

        def slowly(event: dg.EventLogEntry, **options: Any) -> None:
            if event.dagster_event is None:
                time.sleep(seconds)
            record(event, **options)

        self._instance.handle_new_event = slowly  # type: ignore[method-assign]

    def partitions(self) -> Sequence[str]:
        return self._instance.get_dynamic_partitions(NAME)

    def materialize(self, *assets: str) -> Measured:
        """Materialize assets over all partitions, in one run."""
        tags = {}
        if not {"snapshot", "report"} & set(assets):
            keys = self.partitions()
            tags = {
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        wall, cpu = time.perf_counter(), time.process_time()
        result = dg.materialize(
            self._assets,
            selection=[dg.AssetKey([NAME, asset]) for asset in assets],
            instance=self._instance,
            resources=self._resources,
            tags=tags,
        )
        assert result.success
        return Measured(self.rows, time.perf_counter() - wall, time.process_time() - cpu)
