"""The next snapshot, seen before it is taken."""

from __future__ import annotations

from pathlib import Path

from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.preview import preview_snapshot
from ondine_dagster.storage.snapshot import partition_rows, take_snapshot
from ondine_dagster_tests.storage.builders import a_dataset, write_csv


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_have_the_partitions_that_the_next_snapshot_gives_them(tmp_path: Path) -> None:
    lake, dataset, source = Lake(tmp_path / "lake"), a_dataset(), tmp_path / "reviews.csv"
    write_csv(source, ["text"], [["a"], ["b"], ["c"]])
    take_snapshot(lake, dataset, source)
    before = content(tmp_path / "lake")
    write_csv(source, ["text"], [["new"], ["c"], ["b"], ["a"]])
    with preview_snapshot(lake, dataset, source) as (aside, seen):
        rows = {
            one.key: partition_rows(aside, seen, one.key)["text"].to_pylist()
            for one in seen.partitions
        }
    assert rows == {"rows-00000": ["b", "a"], "rows-00001": ["c"], "rows-00002": ["new"]}
    assert content(tmp_path / "lake") == before
    assert not aside.root.exists()
    assert take_snapshot(lake, dataset, source).snapshot.version == seen.version


def test_an_unchanged_source_is_seen_as_the_current_snapshot(tmp_path: Path) -> None:
    lake, dataset, source = Lake(tmp_path / "lake"), a_dataset(), tmp_path / "reviews.csv"
    write_csv(source, ["text"], [["a"], ["b"]])
    current = take_snapshot(lake, dataset, source).snapshot
    with preview_snapshot(lake, dataset, source) as (aside, seen):
        assert seen.version == current.version
        assert partition_rows(aside, seen, "rows-00000")["text"].to_pylist() == ["a", "b"]
    assert current.path.is_file()


def test_nothing_is_made_where_no_snapshot_was_taken(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "reviews.csv", ["text"], [["a"]])
    with preview_snapshot(Lake(tmp_path / "lake"), a_dataset(), source) as (_, seen):
        assert seen.rows == 1
    assert not (tmp_path / "lake").exists()
