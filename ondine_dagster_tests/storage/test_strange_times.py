"""Days and times that files know and Python has not are refused before anything is made of them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import take_snapshot
from ondine_dagster_tests.storage.builders import a_dataset


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([None, 2_932_897], pa.date32()),
        pa.array([-719_163], pa.date32()),
        pa.array([10**18], pa.timestamp("us")),
        pa.array([-(10**11)], pa.timestamp("s", "UTC")),
        pa.array([1], pa.time64("ns")),
        pa.array([[{"at": 10**7}]], pa.list_(pa.struct([("at", pa.date32())]))),
    ],
    ids=str,
)
def test_days_that_python_has_not_are_refused(lake: Lake, tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"fine": ["a"] * len(values), "at": values}), tmp_path / "x.parquet")
    dataset = a_dataset(source={"path": "x.parquet"})
    with pytest.raises(OndineError, match=r"x\.parquet: column 'at' holds a day before the year 1"):
        take_snapshot(lake, dataset, tmp_path / "x.parquet")


def test_the_first_and_the_last_day_are_kept(lake: Lake, tmp_path: Path) -> None:
    days = pa.array([datetime.date.min, None, datetime.date.max])
    columns = {
        "day": days,
        "moment": days.cast(pa.timestamp("us")),
        "nested": [[datetime.date.max], None, []],
        "clock": pa.array([1000, None, 0], pa.time64("ns")),
        "none": pa.nulls(3, pa.date32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    dataset = a_dataset(source={"path": "x.parquet"})
    assert take_snapshot(lake, dataset, tmp_path / "x.parquet").snapshot.rows == 3
