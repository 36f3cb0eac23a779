"""Snapshots: rows keep their partition, nothing is lost in a crash, collisions are refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.storage import snapshot_file
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import (
    Snapshot,
    SnapshotResult,
    check_columns,
    current_snapshot,
    load_snapshot,
    partition_rows,
    take_snapshot,
)
from ondine_dagster_tests.storage.builders import a_dataset, write_csv


class Project:
    """A lake and a source file that changes."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder / "lake")
        self.source = folder / "reviews.csv"

    def take(self, texts: Sequence[str], dataset: Dataset | None = None) -> SnapshotResult:
        write_csv(self.source, ["text"], [[text] for text in texts])
        return take_snapshot(self.lake, dataset or a_dataset(), self.source)

    def texts(self, snapshot: Snapshot) -> dict[str, list[str]]:
        return {
            part.key: partition_rows(self.lake, snapshot, part.key)["text"].to_pylist()
            for part in snapshot.partitions
        }

    def versions(self) -> set[str]:
        return set(self.lake.partitions("reviews", "snapshot"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_first_snapshot_cuts_rows_in_input_order(project: Project) -> None:
    result = project.take("abcde")
    assert project.texts(result.snapshot) == {
        "rows-00000": ["a", "b"],
        "rows-00001": ["c", "d"],
        "rows-00002": ["e"],
    }
    assert result.added == ("rows-00000", "rows-00001", "rows-00002")
    assert (result.removed, result.changed) == ((), ())
    assert [part.rows for part in result.snapshot.partitions] == [2, 2, 1]
    assert (result.snapshot.rows, result.snapshot.next_partition) == (5, 3)
    assert result.snapshot.source_columns == ("text",)
    assert result.snapshot.source_path == str(project.source)


def test_the_file_has_our_columns_first_and_one_row_group_ends_where_a_partition_does(
    project: Project,
) -> None:
    result = project.take([str(n) for n in range(4500)], a_dataset(rows=1500))
    file = pq.ParquetFile(result.snapshot.path)
    assert file.schema_arrow.names == ["_row_key", "_partition", "_position", "text"]
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert groups == [1500, 1500, 1500]


def test_small_partitions_share_row_groups(project: Project) -> None:
    result = project.take([str(n) for n in range(3000)], a_dataset(rows=7))
    assert pq.ParquetFile(result.snapshot.path).num_row_groups == 3
    rows = partition_rows(project.lake, result.snapshot, "rows-00002")
    assert rows["_position"].to_pylist() == list(range(14, 21))


def test_an_unchanged_source_changes_nothing(project: Project) -> None:
    first = project.take("abc").snapshot
    pointer = first.path.with_name("current.json")
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in (first.path, pointer)]
    again = project.take("abc")
    assert again == SnapshotResult(first, (), (), ())
    after = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in (first.path, pointer)]
    assert after == before


@pytest.mark.behaviour("B-2d")
def test_rows_keep_their_partition_through_insert_delete_and_shuffle(project: Project) -> None:
    project.take("abcdef")
    result = project.take("xyfaeb")  # x, y on top; c, d deleted; the rest in another order
    assert project.texts(result.snapshot) == {
        "rows-00000": ["a", "b"],
        "rows-00002": ["f", "e"],
        "rows-00003": ["x", "y"],
    }
    assert (result.added, result.removed, result.changed) == (("rows-00003",), ("rows-00001",), ())
    positions = partition_rows(project.lake, result.snapshot, "rows-00002")["_position"]
    assert positions.to_pylist() == [2, 4]


def test_numbers_of_removed_partitions_are_never_used_again(project: Project) -> None:
    project.take("abcd")
    project.take("ab")
    result = project.take("abcd")  # c and d are new rows now
    assert project.texts(result.snapshot) == {"rows-00000": ["a", "b"], "rows-00002": ["c", "d"]}
    assert result.added == ("rows-00002",)


def test_another_partition_size_is_for_new_rows_only(project: Project) -> None:
    project.take("abcd")
    result = project.take("abcdefg", a_dataset(rows=3))
    assert project.texts(result.snapshot)["rows-00002"] == ["e", "f", "g"]


def test_a_partition_with_other_content_is_changed(project: Project) -> None:
    def take(*rows: tuple[str, str]) -> SnapshotResult:
        write_csv(project.source, ["id", "text"], rows)
        return take_snapshot(project.lake, a_dataset(key="id"), project.source)

    take(("1", "a"), ("2", "b"), ("3", "c"))
    result = take(("1", "a"), ("2", "corrected"), ("3", "c"))
    assert (result.added, result.removed, result.changed) == ((), (), ("rows-00000",))
    result = take(("2", "corrected"), ("3", "c"))
    assert result.changed == ("rows-00000",)


def test_the_content_hash_ignores_order_and_the_version_does_not(project: Project) -> None:
    first = project.take("abcd").snapshot
    second = project.take("bacd")
    assert second.snapshot.partitions == first.partitions
    assert second.snapshot.version != first.version
    assert second.changed == ()


def test_a_renamed_column_changes_every_partition_and_moves_no_row(project: Project) -> None:
    project.take("abc")
    write_csv(project.source, ["renamed"], [["a"], ["b"], ["c"]])
    result = take_snapshot(project.lake, a_dataset(), project.source)
    assert (result.added, result.removed) == ((), ())
    assert result.changed == ("rows-00000", "rows-00001")


def test_hashes_are_those_of_ever(project: Project) -> None:
    """Golden values: if they change, every dataset in the world looks changed."""
    snapshot = project.take(["a", "Привет", ""]).snapshot
    assert [part.content_hash for part in snapshot.partitions] == [
        "bb1909e13b1b3786124912e7d1b7abd7c55448542d5a43b43acf482fb8e2fbf6",
        "8350bc9f73be08343478b5494d5cb606687f4df6aa951a41388aecff979140fb",
    ]
    assert snapshot.version == "7f6168cf48c8fe90c1643dd236cfab94"


def test_equal_values_of_another_type_are_stored_with_the_new_type(tmp_path: Path) -> None:
    lake, source = Lake(tmp_path / "lake"), tmp_path / "x.parquet"
    dataset = a_dataset(source={"path": "x.parquet"})
    pq.write_table(pa.table({"n": pa.array([1], pa.int32())}), source)
    first = take_snapshot(lake, dataset, source).snapshot
    pq.write_table(pa.table({"n": pa.array([1], pa.int64())}), source)
    second = take_snapshot(lake, dataset, source)
    assert (second.snapshot.version, second.changed) == (first.version, ())
    assert partition_rows(lake, second.snapshot, "rows-00000").schema.field("n").type == pa.int64()


@pytest.mark.behaviour("E-2b")
def test_a_header_alone_is_a_valid_snapshot(project: Project) -> None:
    result = project.take([])
    assert (result.snapshot.rows, result.snapshot.partitions) == (0, ())
    assert current_snapshot(project.lake, "reviews") == result.snapshot
    assert project.take("a").added == ("rows-00000",)
    assert project.take([]).removed == ("rows-00000",)


def test_a_snapshot_is_found_again_with_everything(project: Project) -> None:
    taken = project.take("abc").snapshot
    assert current_snapshot(project.lake, "reviews") == taken
    assert load_snapshot(project.lake, "reviews", taken.version) == taken
    assert current_snapshot(project.lake, "other") is None


def test_a_moved_data_folder_still_works(project: Project, tmp_path: Path) -> None:
    project.take("abc")
    shutil.move(project.lake.root, tmp_path / "elsewhere")
    moved = Lake(tmp_path / "elsewhere")
    snapshot = current_snapshot(moved, "reviews")
    assert snapshot is not None
    assert partition_rows(moved, snapshot, "rows-00001")["text"].to_pylist() == ["c"]


def test_the_last_three_are_kept(project: Project) -> None:
    taken = [project.take("abcdef"[: n + 1]).snapshot for n in range(5)]
    assert project.versions() == {snapshot.version for snapshot in taken[2:]}
    pinned = load_snapshot(project.lake, "reviews", taken[2].version)
    assert project.texts(pinned) == {"rows-00000": ["a"], "rows-00001": ["b"], "rows-00002": ["c"]}
    with pytest.raises(OndineError, match="only the last 3 are kept"):
        load_snapshot(project.lake, "reviews", taken[1].version)


def test_a_partition_that_is_not_there_is_named(project: Project) -> None:
    snapshot = project.take("abc").snapshot
    with pytest.raises(OndineError, match="Partition rows-00007 has no rows"):
        partition_rows(project.lake, snapshot, "rows-00007")


def test_interrupted_before_the_pointer_the_old_snapshot_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project.take("abcd").snapshot
    with monkeypatch.context() as patch:

        def crash(path: Path, content: bytes) -> Path:
            raise KeyboardInterrupt

        patch.setattr(snapshot_file, "write_atomically", crash)
        with pytest.raises(KeyboardInterrupt):
            project.take("xabcd")
    assert current_snapshot(project.lake, "reviews") == first
    assert project.texts(first) == {"rows-00000": ["a", "b"], "rows-00001": ["c", "d"]}
    result = project.take("yabcd")
    assert result.added == ("rows-00002",)  # the number was not spent by the failed try
    assert project.versions() == {first.version, result.snapshot.version}  # no orphan


def test_a_damaged_pointer_is_named(project: Project) -> None:
    pointer = project.take("a").snapshot.path.with_name("current.json")
    pointer.write_text(json.dumps({"snapshot": {}}))
    with pytest.raises(OndineError, match=r"current\.json.*is damaged"):
        current_snapshot(project.lake, "reviews")


def test_a_lost_snapshot_file_is_named(project: Project) -> None:
    project.take("a").snapshot.path.unlink()
    with pytest.raises(OndineError, match=r"The file of snapshot .* is gone"):
        project.take("ab")


def _take_in_process(folder: Path, number: int, start: Any) -> None:
    project = Project(folder)
    source = write_csv(folder / f"{number}.csv", ["text"], [["a"], ["b"], [f"own {number}"]])
    start.wait()
    take_snapshot(project.lake, a_dataset(), source)


def test_concurrent_snapshots_take_turns(tmp_path: Path) -> None:
    """Each process adds a row of its own and drops the others': every time a new number."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    processes = [
        context.Process(target=_take_in_process, args=(tmp_path, number, start))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    snapshot = current_snapshot(Lake(tmp_path / "lake"), "reviews")
    assert snapshot is not None
    assert snapshot.next_partition == 5  # 2 by the first, 1 by each of the others
    assert os.listdir(snapshot.path.parent).count("current.json") == 1


def test_a_large_shuffle_keeps_every_row(project: Project) -> None:
    texts = [f"text {number}" for number in range(5000)]
    project.take(texts, a_dataset(rows=600))
    random.Random(7).shuffle(texts)
    result = project.take(texts, a_dataset(rows=600))
    assert (result.added, result.removed, result.changed) == ((), (), ())
    together = pa.concat_tables(
        partition_rows(project.lake, result.snapshot, part.key)
        for part in result.snapshot.partitions
    ).sort_by("_position")
    assert together["text"].to_pylist() == texts
    assert together["_position"].to_pylist() == list(range(5000))
    # Two partitions of 600 share a row group: the rows lie together, whatever the input order.
    file = pq.ParquetFile(result.snapshot.path)
    statistics = [
        file.metadata.row_group(n).column(1).statistics for n in range(file.num_row_groups)
    ]
    spans = [(each.min, each.max) for each in statistics]
    keys = [part.key for part in result.snapshot.partitions]
    assert spans == list(zip(keys[::2], [*keys[1::2], keys[-1]], strict=True))


def an_output(column: str) -> dict[str, Any]:
    return {"fields": {"answer": {"type": "string", "column": column}}}


@pytest.mark.behaviour("E-11")
@pytest.mark.parametrize(
    ("declared", "columns", "message"),
    [
        ({}, ["text", "response"], "both have the columns response.*`output.column`"),
        ({}, ["text", "Response"], "both have the columns Response"),
        ({"output": an_output("label")}, ["text", "label"], "both have the columns label"),
        ({}, ["text", "_row_key", "_cost_usd"], "added to the results: _row_key, _cost_usd"),
        ({}, ["text", "_Position"], "added to the results: _Position"),
        ({"key": "id"}, ["text"], "source.key names id, .* Its columns: text"),
        ({}, [], "no columns"),
    ],
)
def test_columns_that_collide_are_refused_by_name(
    declared: dict[str, Any], columns: list[str], message: str
) -> None:
    with pytest.raises(OndineError, match=f"Dataset reviews: .*{message}"):
        check_columns(a_dataset(**declared), columns)


def test_columns_that_do_not_collide_pass() -> None:
    check_columns(a_dataset(), ["text", "_id", "answer"])


@pytest.mark.behaviour("E-11")
def test_a_collision_is_refused_before_anything_is_written(project: Project) -> None:
    write_csv(project.source, ["text", "response"], [["a", "b"]])
    with pytest.raises(OndineError, match="response"):
        take_snapshot(project.lake, a_dataset(), project.source)
    assert current_snapshot(project.lake, "reviews") is None
