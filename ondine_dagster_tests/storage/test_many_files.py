"""Sources of several files: patterns, folders, object stores; and tables that Python holds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset, Source
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.locate import columns_of, locate, pieces_of, read_rows
from ondine_dagster.storage.located import Located, NotWatchable
from ondine_dagster.storage.snapshot import take_snapshot
from ondine_dagster.storage.sources import SourceNotFound
from ondine_dagster_tests.spec.declarations import attributes, only_problem

STORE = "memory://bucket"


def declared(source: dict[str, Any], **more: Any) -> Dataset:
    return Dataset.model_validate(attributes(source=source, **more))


def found(folder: Path, dataset: Dataset) -> Located:
    return locate(dataset, folder / "defs.yaml", folder, dict)


def read(folder: Path, source: dict[str, Any], **more: Any) -> dict[str, list[Any]]:
    dataset = declared(source, **more)
    place = found(folder, dataset)
    table, counts = read_rows(dataset, place)
    assert columns_of(dataset, place) == table.column_names
    assert sum(count.rows for count in counts) == table.num_rows
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, ids in {"b": (3,), "a": (1, 2), ".half": (9,), "deep/c": (4,)}.items():
        file = folder / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(["id,review", *(f"{one},r{one}" for one in ids)]))
    (folder / "read.me").write_text("no table")
    return tmp_path


@pytest.fixture
def store(files: Path) -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    for file in (files / "in").rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/bucket/{file.relative_to(files)}", file.read_bytes())
    yield memory
    memory.rm("/bucket", recursive=True)


@pytest.fixture(params=["folder", "store"])
def base(request: pytest.FixtureRequest, files: Path, store: Any) -> str:
    return f"{STORE}/" if request.param == "store" else ""


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("in/", "123"),
        ("in/*.csv", "123"),
        ("in/[b]*.csv", "3"),
        ("in/**/*.csv", "1234"),
        ("in/deep/", "4"),
        ("in/a.csv", "12"),
    ],
)
def test_a_pattern_and_a_folder_are_the_files_in_them(
    files: Path, base: str, path: str, ids: str
) -> None:
    assert sorted(read(files, {"path": base + path})["id"]) == list(ids)


def test_a_column_tells_the_file(files: Path, base: str) -> None:
    source = {"path": f"{base}in/**/*.csv", "file_column": "from"}

    rows = read(files, source)

    by_id = dict(zip(rows["id"], rows["from"], strict=True))
    assert by_id == {"1": "a.csv", "2": "a.csv", "3": "b.csv", "4": "deep/c.csv"}
    assert read(files, {"path": f"{base}in/a.csv", "file_column": "from"})["id"] == ["1", "2"]


def test_files_of_a_store_make_partitions(files: Path, store: Any) -> None:
    dataset = declared({"key": "id"}, partitions={"files": f"{STORE}/in/*.csv"})
    snapshot = take_snapshot(Lake(files / "lake"), dataset, found(files, dataset)).snapshot
    assert {one.key: one.rows for one in snapshot.partitions} == {"a": 2, "b": 1}
    assert snapshot.source_path == f"{STORE}/in/*.csv"

    store.pipe_file("/bucket/days/o-2026-01-02.csv", b"id,review\n7,x\n")
    names = {"filename": f"{STORE}/days/o-%Y-%m-%d.csv", "every": "day", "start": "2026-01-01"}
    dataset = declared({"key": "id"}, partitions={"time": names})
    snapshot = take_snapshot(Lake(files / "lake2"), dataset, found(files, dataset)).snapshot
    assert [one.key for one in snapshot.partitions] == ["2026-01-02"]


def test_all_kinds_of_files_come_from_a_store(tmp_path: Path, store: Any) -> None:
    nasty = ["", None, "two\nlines", "日本語 👩‍👩‍👧", "x" * 1_000_000]
    table = pa.table({"id": [*range(5)], "text": nasty})
    pq.write_table(table, tmp_path / "x.parquet")
    lines = "\n".join(json.dumps(row) for row in table.to_pylist())
    store.put_file(str(tmp_path / "x.parquet"), "/bucket/k/x.parquet")
    store.pipe_file("/bucket/k/x.jsonl", lines.encode())
    store.pipe_file("/bucket/k/x.jsonl.gz", gzip.compress(lines.encode()))
    store.pipe_file("/bucket/k/x.json", json.dumps(table.to_pylist()).encode())

    for name in ("x.parquet", "x.jsonl", "x.jsonl.gz", "x.json"):
        assert read(tmp_path, {"path": f"{STORE}/k/{name}"}) == table.to_pydict(), name


def test_files_with_other_columns_are_named(files: Path, base: str, store: Any) -> None:
    (files / "in" / "z.csv").write_text("id,revew\n9,x\n")
    store.pipe_file("/bucket/in/z.csv", b"id,revew\n9,x\n")

    with pytest.raises(
        OndineError, match=r"in/z\.csv has other columns than .*in/a\.csv"
    ) as caught:
        read(files, {"path": f"{base}in/*.csv"})

    assert "it lacks review; it has revew besides" in str(caught.value)
    assert str(caught.value).startswith(STORE if base else str(files))  # no copy is named


def test_a_column_that_is_empty_in_a_file_has_the_type_of_the_others(tmp_path: Path) -> None:
    for name, prices in {"a": (None, None), "b": (7, None), "c": ()}.items():
        lines = [json.dumps({"id": f"{name}{n}", "price": one}) for n, one in enumerate(prices)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) or '{"id": null, "price": null}')

    rows = read(tmp_path, {"path": "*.jsonl"})

    assert rows["price"] == [None, None, 7, None, None]
    (tmp_path / "d.jsonl").write_text('{"id": "d", "price": "dear"}')
    with pytest.raises(OndineError, match=r"d\.jsonl .* price is string instead of int64"):
        read(tmp_path, {"path": "*.jsonl"})


def test_what_is_not_there_is_said(files: Path, base: str) -> None:
    for path in ("out/*.csv", "out/", "in/none.csv"):
        with pytest.raises(SourceNotFound, match=path.split("/")[0]):
            read(files, {"path": base + path})


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(files: Path) -> None:
    (files / "in" / "a[1].csv").write_text("id,review\n8,x\n")
    assert read(files, {"path": "in/a[1].csv"})["id"] == ["8"]


def test_a_column_for_the_file_has_a_name_of_its_own(files: Path) -> None:
    with pytest.raises(OndineError, match="columns with the same name: review"):
        read(files, {"path": "in/*.csv", "file_column": "review"})


def test_a_changed_file_is_seen(files: Path, base: str, store: Any) -> None:
    dataset = declared({"path": f"{base}in/*.csv"})

    def seen() -> list[Any]:
        return pieces_of(dataset, found(files, dataset))

    before = seen()
    assert before == seen()
    (files / "in" / "a.csv").write_text("id,review\n1,new\n")
    store.pipe_file("/bucket/in/a.csv", b"id,review\n1,new\n")
    after = seen()
    assert len(after) == len(before) == 2
    assert [one.name.rpartition("/")[2] for one in after if one not in before] == ["a.csv"]


def test_a_new_file_is_seen_in_a_store_that_remembers_its_lists(
    files: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered: dict[str, Any] = {}
    real = MemoryFileSystem.glob

    def glob(memory: MemoryFileSystem, path: str, **options: Any) -> Any:
        return remembered.setdefault(path, real(memory, path, **options))

    monkeypatch.setattr(MemoryFileSystem, "glob", glob)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda *_: remembered.clear())
    source = {"path": f"{STORE}/in/"}
    assert sorted(read(files, source)["id"]) == ["1", "2", "3"]

    store.pipe_file("/bucket/in/new.csv", b"id,review\n5,x\n")

    assert sorted(read(files, source)["id"]) == ["1", "2", "3", "5"]


def test_a_store_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, package in (("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(OndineError, match=r"pip install 'ondine_dagster\[\w+\]'"):
            read(tmp_path, {"path": f"{name}://bucket/x.csv"})


@pytest.mark.parametrize(
    "path",
    [
        "s3://me:hunter2@bucket/x.csv",
        "az://box/x.csv?sig=hunter2",
        "s3://b/x.csv?X-Amz-Key=hunter2",
    ],
)
def test_secrets_in_an_address_are_refused_unquoted(path: str) -> None:
    message = only_problem(attributes(source={"path": path})).message
    assert "holds a password or a signature" in message and "hunter2" not in message


# tables that Python holds


FRAME = pd.DataFrame(
    {
        "id": [1, 2],
        "text": ["", None],
        "at": pd.to_datetime(["2020-01-01T10:00+02:00", None]),
        "kind": pd.Categorical(["a", None]),
        "many": [[1, 2], None],
    }
)


@pytest.mark.parametrize(
    "frame",
    [FRAME, pl.DataFrame(pa.Table.from_pandas(FRAME)), pa.Table.from_pandas(FRAME)],
    ids=["pandas", "polars", "arrow"],
)
def test_a_frame_is_a_source_as_it_is(tmp_path: Path, frame: Any) -> None:
    lake, keys = Lake(tmp_path / "lake"), []
    for value in (frame, lambda: frame):
        dataset = Dataset.model_validate(attributes(source={"dataframe": value, "key": "id"}))
        snapshot = take_snapshot(lake, dataset, found(tmp_path, dataset)).snapshot
        keys.append(snapshot.version)
    table = pq.read_table(snapshot.path)
    assert table["text"].to_pylist() == ["", None]
    assert table["many"].to_pylist() == [[1, 2], None]
    assert table["kind"].to_pylist() == ["a", None]
    assert [at and at.isoformat()[-6:] for at in table["at"].to_pylist()][1] is None
    assert len(set(keys)) == 1


def test_a_named_index_is_a_column(tmp_path: Path) -> None:
    counted = pd.DataFrame({"id": [1, 2, 2], "n": [1, 2, 3]}).groupby("id").agg({"n": "sum"})
    both = pd.DataFrame({"id": [1, 2], "n": [1, 5]}).set_index("id", drop=False)
    other = pd.DataFrame({"id": [1, 2], "n": [1, 5]}, index=["a", "b"])
    for frame in (counted, both, other):
        dataset = Dataset.model_validate(attributes(source={"dataframe": frame, "key": "id"}))
        rows = read_rows(dataset, found(tmp_path, dataset))[0]
        assert rows.to_pydict() == {"id": [1, 2], "n": [1, 5]}


def test_periods_are_text(tmp_path: Path) -> None:
    months = pd.DataFrame({"month": pd.period_range("2026-01", periods=2, freq="M")})
    dataset = Dataset.model_validate(attributes(source={"dataframe": months}))
    rows = read_rows(dataset, found(tmp_path, dataset))[0]
    assert rows.to_pydict() == {"month": ["2026-01", "2026-02"]}


def test_a_lazy_frame_is_collected_when_the_snapshot_is_taken(tmp_path: Path) -> None:
    asked = []
    lazy = pl.LazyFrame({"id": [1]}).map_batches(lambda frame: asked.append(1) or frame)
    dataset = Dataset.model_validate(attributes(source={"dataframe": lazy}))
    place = found(tmp_path, dataset)
    assert not asked

    assert read_rows(dataset, place)[0].to_pydict() == {"id": [1]}
    with pytest.raises(NotWatchable, match="does not tell"):
        pieces_of(dataset, place)


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    assert "only for declarations in Python" in (
        only_problem(attributes(source={"dataframe": "x.csv"})).message
    )
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    strange = pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)})
    for frame, words in (
        (object(), "is no table"),
        (pl.Series([1]), "is no table"),
        (twice, "same name: a"),
        (strange, "column 'a' holds Python objects"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "column a"),
    ):
        dataset = Dataset.model_validate(attributes(source=Source(dataframe=frame)))
        with pytest.raises(OndineError, match=words):
            read_rows(dataset, found(tmp_path, dataset))
    assert "DataFrame" not in repr(Dataset.model_validate(attributes(source={"dataframe": twice})))
