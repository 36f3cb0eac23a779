"""Small sources, datasets and lake files for the tests of this room."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ondine_dagster.spec import Dataset
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import Snapshot, partition_rows

# texts that a file or a database may take for something else
NASTY = [
    'say "hi", she\nsaid\r\nbye',
    "semi;colon,\ttab \\ back\\nslash \\N \\.",
    "one\n\\.\ntwo",
    "\\.",
    "👋🏽 é e\u0301",
    "שלום עולם \u202eabc",
    "NULL",
    "",
    None,
    "'; drop table results; --",
    "x" * 1_000_000,
]


def a_dataset(rows: int = 2, key: Any = (), **declared: Any) -> Dataset:
    return Dataset.model_validate(
        {
            "name": "reviews",
            "source": {"path": "reviews.csv", "key": key},
            "partitions": {"rows": rows},
            "prompt": {"template": "Review: {{ text }}"},
            "llm": {
                "provider": "openai_compatible",
                "name": "m",
                "base_url": "http://127.0.0.1:9/v1",
                "prices": {"input_per_million_usd": 1, "output_per_million_usd": 1},
            },
            **declared,
        }
    )


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_results(
    lake: Lake,
    snapshot: Snapshot,
    partition: str,
    answers: Mapping[str, str],
    asset: str = "results",
    **extra: Any,
) -> None:
    """Write the rows of a partition whose keys are in `answers`, as our assets do."""
    rows = partition_rows(lake, snapshot, partition)
    keys = rows["_row_key"].to_pylist()
    rows = rows.filter(pa.array([key in answers for key in keys]))
    columns = {name: rows[name] for name in snapshot.source_columns}
    columns["label"] = pa.array([answers[key] for key in keys if key in answers], pa.string())
    for name, value in extra.items():
        columns[name] = pa.array([value] * rows.num_rows)
    for name in ("_row_key", "_position"):
        columns[name] = rows[name]
    columns["_outcome"] = pa.array(["ok"] * rows.num_rows, pa.string())
    lake.write(snapshot.dataset, asset, partition, pa.table(columns))
