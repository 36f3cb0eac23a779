"""Which partition a row belongs to: windows are Dagster's own, keys are safe, reasons are given."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.shared.partitions import known_keys, partitions_def
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset, TimePartitions
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.layout import partition_of
from ondine_dagster.storage.notes import read_notes
from ondine_dagster.storage.partition_keys import LONGEST_KEY, file_key, value_key
from ondine_dagster.storage.partitioning import UNASSIGNED, by_data
from ondine_dagster.storage.snapshot import current_snapshot, rows_of, take_snapshot
from ondine_dagster.storage.source_files import resolve_source
from ondine_dagster.storage.time_windows import TimeWindows
from ondine_dagster_tests.storage.builders import a_dataset, write_csv

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo", "UTC")
EVERY = ("hour", "day", "week", "month")


def pipeline_of(dataset: Dataset, folder: Path) -> Pipeline:
    return Pipeline(dataset, folder / "defs.yaml", folder)


@pytest.mark.behaviour("B-9")
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", EVERY)
def test_windows_are_those_of_dagster_over_years(zone: str, every: Any, tmp_path: Path) -> None:
    """With days of 23 and 25 hours, the hour that comes twice, and ends of months."""
    years = 1 if every == "hour" else 5
    start, end = datetime(2017, 1, 15, 5), datetime(2017 + years, 2, 1, tzinfo=ZoneInfo(zone))
    declared = TimePartitions(column="at", every=every, timezone=zone, start=start)
    dataset = a_dataset(partitions={"time": declared})
    definition = partitions_def(pipeline_of(dataset, tmp_path))
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    theirs = definition.get_partition_keys(current_time=end)
    windows, ours = TimeWindows(declared), dict.fromkeys(["before"], 0)
    moment = datetime(2017, 1, 15, tzinfo=UTC)
    while moment < end.astimezone(UTC):
        ours.setdefault(windows.key(moment) or "before", 0)
        moment += timedelta(minutes=30 if every == "hour" else 180)
    found = list(ours)[1:]
    assert found[: len(theirs)] == list(theirs)
    assert len(found) - len(theirs) <= 1, "the window that is not over"
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("zone", "text", "key"),
    [
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29-03:00"),  # left out by the clock
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25-02:00"),  # the first of two
        ("Europe/Berlin", "2026-10-25T01:30+00:00", "2026-10-25-02:00+0100"),  # the second
        ("America/New_York", "2026-11-01T06:15Z", "2026-11-01-01:00-0500"),
        ("Asia/Kolkata", "2026-01-01T00:10Z", "2026-01-01-05:00"),
        ("Asia/Kolkata", "2025-12-31T18:29Z", None),
        ("Asia/Kolkata", "2025-12-31T18:30Z", "2026-01-01-00:00"),
    ],
)
def test_hours_when_clocks_change(zone: str, text: str, key: str | None) -> None:
    declared = TimePartitions(column="at", every="hour", timezone=zone, start=datetime(2026, 1, 1))
    assert TimeWindows(declared).key(datetime.fromisoformat(text)) == key


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        (pa.array(["2026-01-31", None, "x", " 2026-02-01T00:00 "]), ["01-01", None, None, "02-01"]),
        (pa.array([20484, None, 20485], pa.date32()), ["01-01", None, "02-01"]),
        (pa.array([datetime(2026, 1, 31, 23), None]), ["01-01", None]),
        (
            pa.array([datetime(2026, 1, 31, 23, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            ["02-01"],
        ),
        (pa.array([1767225600]), [None]),
        (pa.array(["a", "2026-01-01"]).dictionary_encode(), [None, "01-01"]),
        (pa.array([[1], None]), [None, None]),
    ],
)
def test_a_column_of_any_type_tells_the_window_or_the_reason(
    column: pa.Array, keys: list[str | None]
) -> None:
    time = {"column": "at", "every": "month", "timezone": "Europe/Berlin", "start": "2026-01-01"}
    placed = by_data(a_dataset(partitions={"time": time}).partitions, pa.table({"at": column}), [])
    assert placed.keys == [UNASSIGNED if key is None else f"2026-{key}" for key in keys]
    assert sorted(placed.reasons) == [row for row, key in enumerate(keys) if key is None]
    assert all(reason.startswith("at is ") for reason in placed.reasons.values())


NASTY = [
    "a,b",
    "a/b",
    "a\\b",
    'a"b',
    "a'b",
    "a\nb",
    "a\0b",
    '{"a": 1}',
    '["a"]',
    "a...b",
    "a*",
    "a?b",
    "a#b",
    "a%b",
    "a|b",
    "<a>",
    "..",
    ".",
    ",",
    "_unassigned",
    " a",
    "a ",
    "e\u0301",
    "x" * 300,
    "\u0436" * 90,
    "\U0001f600",
    "\ud800",
]
PLAIN = ["de", "New York", "2026-01-01", "a@b.org", "x=1", "\u0436\u0443\u043a", "\u00e9", "all"]


def test_keys_of_values_are_safe_stable_and_never_the_same_twice() -> None:
    assert [value_key(value) for value in PLAIN] == PLAIN
    keys = [value_key(value) for value in NASTY]
    assert len({*keys, *PLAIN}) == len(NASTY) + len(PLAIN)
    for key in keys:
        assert 0 < len(key) <= LONGEST_KEY
        assert not set(key) & set(",/\\'\"\n\0{}[]*?#%|<>"), key
        assert ".." not in key
        assert key[0] not in " ._"
    assert value_key("Korea, Republic of") == "Korea- Republic of-267879284d"


@pytest.mark.parametrize("key", [value_key(value) for value in (*NASTY, *PLAIN)])
def test_a_key_is_the_name_of_a_file_and_back(key: str, tmp_path: Path) -> None:
    file = Lake(tmp_path).path("notes", "results", key)
    assert partition_of(file) == key
    file.parent.mkdir(parents=True)
    file.touch()


def test_keys_of_files_come_from_their_paths() -> None:
    assert file_key("a.csv") == "a"
    assert file_key("2026/01/a.csv") == "2026~01~a"
    names = ["2026/01/a.csv", "2026~01~a.csv", "2026/01~a.csv", "2026~01/a.csv"]
    assert len({file_key(name) for name in names}) == 4


class Files:
    """A folder of source files, and the dataset that reads it."""

    def __init__(self, folder: Path, pattern: str = "in/*.csv", key: Any = "id") -> None:
        self.folder = folder
        self.lake = Lake(folder / "lake")
        self.dataset = a_dataset(source={"key": key}, partitions={"files": pattern})

    def write(self, name: str, *rows: str, header: str = "id,text") -> None:
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n")

    def take(self) -> dict[str, list[str]]:
        path = resolve_source(self.dataset, self.folder / "defs.yaml", self.folder)
        snapshot = take_snapshot(self.lake, self.dataset, path).snapshot
        return {key: rows_of(snapshot, key)["text"].to_pylist() for key in snapshot.by_key}


def test_files_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    files = Files(tmp_path, "in/**/*.csv")
    files.write("b.csv", "1,one")
    files.write("a/z.csv", "2,two")
    files.write("a/a.csv", "text,3", header="text,id")
    files.write(".half.csv", "broken")
    assert files.take() == {"a~a": ["text"], "a~z": ["two"], "b": ["one"]}
    snapshot = current_snapshot(files.lake, "reviews")
    assert snapshot is not None
    assert [rows_of(snapshot, key)["_position"].to_pylist() for key in snapshot.by_key] == [
        [0],
        [1],
        [2],
    ]


def test_a_row_without_a_key_column_is_the_same_in_another_file(tmp_path: Path) -> None:
    files = Files(tmp_path, key=())
    files.write("a.csv", "1,same", "1,same")
    files.take()
    before = current_snapshot(files.lake, "reviews")
    assert before is not None
    names = rows_of(before, "a")["_row_key"].to_pylist()
    (tmp_path / "in/a.csv").rename(tmp_path / "in/b.csv")
    assert files.take() == {"b": ["same", "same"]}
    after = current_snapshot(files.lake, "reviews")
    assert after is not None
    assert rows_of(after, "b")["_row_key"].to_pylist() == names
    assert len(set(names)) == 2


def test_a_file_with_other_columns_is_refused_by_name(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("a.csv", "1,one")
    files.write("b.csv", "2,two,3", header="id,txt,more")
    with pytest.raises(OndineError, match=r"b\.csv has other columns than .*a\.csv: it lacks text"):
        files.take()


def test_a_parquet_file_with_another_type_is_refused_by_name(tmp_path: Path) -> None:
    files = Files(tmp_path, "in/*.parquet")
    (tmp_path / "in").mkdir()
    for name, kind in (("a", pa.int64()), ("b", pa.string())):
        table = pa.table({"id": pa.array([None], kind), "text": [name]})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(OndineError, match=r"b\.parquet .*: id is string instead of int64"):
        files.take()


def test_files_that_are_gone_leave_the_snapshot_as_it_was(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("a.csv", "1,one")
    files.take()
    (tmp_path / "in/a.csv").unlink()
    with pytest.raises(OndineError, match=r"no file matches 'in/\*\.csv'. Tried: "):
        files.take()
    snapshot = current_snapshot(files.lake, "reviews")
    assert snapshot is not None
    assert list(snapshot.by_key) == ["a"]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", ["text"], [["a"]])
    dataset = a_dataset(partitions={"values": {"column": "country"}})
    with pytest.raises(OndineError, match=r"partitions\.values\.column names country, which"):
        take_snapshot(Lake(tmp_path / "lake"), dataset, path)


@pytest.mark.slow
def test_a_hundred_thousand_partitions_are_placed_and_found(tmp_path: Path) -> None:
    hours = [datetime(2014, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(100_000)]
    random.Random(3).shuffle(hours)
    rows = [[n, hour.isoformat()] for n, hour in enumerate(hours)]
    path = write_csv(tmp_path / "reviews.csv", ["text", "at"], rows)
    time = {"column": "at", "every": "hour", "start": "2014-01-01"}
    dataset, lake = a_dataset(partitions={"time": time}), Lake(tmp_path / "lake")
    snapshot = take_snapshot(lake, dataset, path).snapshot
    with dg.DagsterInstance.ephemeral() as instance:
        known = known_keys(pipeline_of(dataset, tmp_path), instance)
    assert list(snapshot.by_key) == list(known[:100_000])
    for key in random.Random(5).sample(list(snapshot.by_key), 5):
        (row,) = rows_of(snapshot, key).to_pylist()
        assert f"{hours[int(row['text'])]:%Y-%m-%d-%H:%M}" == key


def test_notes_of_many_files_are_those_of_the_files_as_they_are(tmp_path: Path) -> None:
    lake, keys = Lake(tmp_path), [f"k{n}" for n in range(600)]

    def write(key: str, note: str) -> None:
        lake.write("notes", "results", key, pa.table({"a": [1]}), {"n": note})

    for key in keys:
        write(key, key)
    first = read_notes(lake, "notes", "results", [*keys, "none"], ["n"])
    assert first == {key: {"n": key} for key in keys}
    write("k3", "other")
    lake.delete("notes", "results", "k4")
    again = read_notes(lake, "notes", "results", keys, ["n"])
    assert again["k3"] == {"n": "other"}
    assert again.keys() == first.keys() - {"k4"}
    hidden = tmp_path / "notes" / "results" / ".notes.json"
    hidden.write_text("{")
    assert read_notes(lake, "notes", "results", keys, ["n"]) == again
    assert lake.partitions("notes", "results") == sorted(again)
