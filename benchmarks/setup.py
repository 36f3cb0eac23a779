"""A data folder, a made-up table and a dataset over it, for benchmarks and for nothing else."""

from __future__ import annotations

import csv
import logging
import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from ondine_dagster.assets.factory import build_assets
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.resources import resources
from ondine_dagster.spec import Dataset

NAME = "bench"
_WORDS = (
    "the parcel came late but every cup was whole and my daughter loves the blue one although its "
    "handle feels loose after two weeks of daily use so I would buy it again at a lower price"
).split()


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


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class Bench:
    """A dataset of made-up reviews in `folder`, its assets and a Dagster instance on disk."""

    def __init__(self, folder: Path, rows: int, base_url: str, concurrency: int = 100) -> None:
        logging.disable(logging.INFO)
        os.environ["ONDINE_DATA_DIR"] = str(folder)
        self.rows = rows
        self.source = folder / "reviews.csv"
        _write_reviews(self.source, rows)
        dataset = Dataset.model_validate(
            {
                "name": NAME,
                "source": {"path": str(self.source), "key": "id"},
                "partitions": {"rows": 5000},
                "prompt": {
                    "system": "You label product reviews.",
                    "template": "Product: {{ product }}\nReview: {{ review }}",
                },
                "llm": {
                    "provider": "openai_compatible",
                    "name": "gpt-4o-mini",
                    "base_url": base_url,
                    "prices": {"input_per_million_usd": 0.15, "output_per_million_usd": 0.6},
                },
                "output": {
                    "fields": {
                        "sentiment": {
                            "type": "string",
                            "enum": ["positive", "negative", "neutral"],
                        },
                        "score": {"type": "integer", "minimum": 0, "maximum": 10},
                    }
                },
                "limits": {"concurrency": concurrency},
            }
        )
        self.pipeline = Pipeline(dataset, folder / "bench.yaml", folder)
        self._assets = build_assets(self.pipeline)
        self._resources = dict(resources(folder))
        home = folder / "dagster_home"
        home.mkdir()
        self._instance = dg.DagsterInstance.local_temp(str(home))

    def partitions(self) -> Sequence[str]:
        return self._instance.get_dynamic_partitions(NAME)

    def materialize(self, *assets: str) -> Measured:
        """Materialize assets over all partitions, in one run."""
        tags = {}
        if assets != ("snapshot",):
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


def _write_reviews(path: Path, rows: int) -> None:
    chance = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product", "country", "date", "review"])
        for number in range(rows):
            review = f"{' '.join(chance.choices(_WORDS, k=25))} {number}"
            writer.writerow([f"R{number}", chance.choice(_WORDS), "DE", "2026-01-01", review])
