"""The IO manager through real Dagster runs: one partition, ranges, all, and what is stored.

Without `from __future__ import annotations`: Dagster chooses by the annotations of these assets.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.frames import is_polars
from ondine_dagster.storage.io_manager import DuckDBIOManager
from ondine_dagster.storage.lake import Lake, MissingPartition
from ondine_dagster.storage.views import view_statements

PARTITIONS = dg.DynamicPartitionsDefinition(name="reviews")
KEYS = [f"rows-{number:05d}" for number in (3, 1, 2, 0, 4, 5)]  # their order is not by name
RESULTS = dg.AssetSpec(["reviews", "results"], partitions_def=PARTITIONS)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("stars", pa.int64()),
        ("good", pa.bool_()),
        ("score", pa.float64()),
        ("_position", pa.int64()),
    ]
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two rows per partition, written out of order, one with NULLs."""
    lake = Lake(tmp_path / "lake")
    for number, key in enumerate(KEYS):
        rows = [
            {"text": f"{key} b", "stars": None, "good": None, "_position": 10 * number + 1},
            {"text": f"{key} a", "stars": number, "good": True, "score": 0.5, "_position": number},
        ]
        lake.write("reviews", "results", key, pa.Table.from_pylist(rows, SCHEMA))
    return lake


@pytest.fixture
def instance() -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("reviews", KEYS)
    return instance


Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(lake: Lake, instance: dg.DagsterInstance) -> Run:
    def run(asset: Any, *keys: str, others: tuple[Any, ...] = ()) -> dg.ExecuteInProcessResult:
        tags = {"dagster/asset_partition_range_start": keys[0]} if len(keys) > 1 else {}
        if tags:
            tags["dagster/asset_partition_range_end"] = keys[-1]
        return dg.materialize(
            [asset, RESULTS, *others],
            selection=[asset],
            instance=instance,
            resources={"io_manager": DuckDBIOManager(root=str(lake.root))},
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=tags,
        )

    return run


def ins() -> dict[str, dg.AssetIn]:
    return {"results": dg.AssetIn(["reviews", "results"])}


def an_asset(annotation: Any, got: list[Any], partitioned: bool) -> Any:
    """An asset that notes what arrives; an unpartitioned one depends on all partitions."""

    def downstream(results):  # type: ignore[no-untyped-def]
        got.append(results)

    downstream.__annotations__ = {"return": None}
    if annotation is not None:
        downstream.__annotations__["results"] = annotation
    return dg.asset(
        ins=ins(),
        partitions_def=PARTITIONS if partitioned else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )(downstream)


def texts(table: Any) -> list[str]:
    if isinstance(table, pd.DataFrame):
        return list(table["text"])
    if isinstance(table, duckdb.DuckDBPyRelation):
        return [row[0] for row in table.select("text").fetchall()]
    result: list[str] = table["text"].to_list() if is_polars(table) else table["text"].to_pylist()
    return result


@pytest.mark.parametrize(
    ("annotation", "arrives"),
    [
        (None, pd.DataFrame),
        (Any, pd.DataFrame),
        (pd.DataFrame, pd.DataFrame),
        (pa.Table, pa.Table),
        (pl.DataFrame, pl.DataFrame),
        (duckdb.DuckDBPyRelation, duckdb.DuckDBPyRelation),
    ],
)
@pytest.mark.parametrize(
    "keys", [KEYS[1:2], KEYS[1:], ()], ids=["one partition", "a range", "all partitions"]
)
def test_one_table_arrives_in_order(
    run: Run, annotation: Any, arrives: type, keys: tuple[str, ...]
) -> None:
    got: list[Any] = []
    assert run(an_asset(annotation, got, partitioned=bool(keys)), *keys).success
    assert isinstance(got[0], arrives)
    expected = [f"{key} {row}" for key in keys or KEYS for row in "ab"]
    assert texts(got[0]) == expected
    assert len(got) == 1


@pytest.mark.behaviour("E-2")
@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
def test_a_frame_has_the_same_types_with_and_without_null(run: Run, keys: list[str]) -> None:
    got: list[Any] = []
    run(an_asset(pd.DataFrame, got, partitioned=True), *keys)
    types = {name: str(kind) for name, kind in got[0].dtypes.items()}
    assert types == {
        "text": "string",
        "stars": "Int64",
        "good": "boolean",
        "score": "float64",
        "_position": "Int64",
    }
    assert got[0]["stars"].isna().sum() == len(keys)
    assert list(got[0].index) == list(range(2 * len(keys)))


@pytest.mark.behaviour("E-2b")
@pytest.mark.parametrize("annotation", [pd.DataFrame, pa.Table, duckdb.DuckDBPyRelation])
def test_an_empty_partition_has_its_columns(run: Run, lake: Lake, annotation: Any) -> None:
    lake.write("reviews", "results", KEYS[0], SCHEMA.empty_table())
    got: list[Any] = []
    run(an_asset(annotation, got, partitioned=True), KEYS[0])
    names = got[0].column_names if annotation is pa.Table else list(got[0].columns)
    assert names == SCHEMA.names
    assert texts(got[0]) == []


@pytest.mark.parametrize("keys", [KEYS[1:2], KEYS, ()])
def test_missing_partitions_are_named(run: Run, lake: Lake, keys: tuple[str, ...]) -> None:
    lake.delete("reviews", "results", KEYS[1])
    with pytest.raises(MissingPartition, match=r"for 1 of .*: rows-00001") as error:
        run(an_asset(pd.DataFrame, [], partitioned=bool(keys)), *keys)
    assert "Asset reviews/results has no file" in str(error.value)
    assert ("allow_missing_partitions" in str(error.value)) == (len(keys) != 1)


def test_missing_partitions_can_be_allowed(run: Run, lake: Lake) -> None:
    lake.delete("reviews", "results", KEYS[1])
    allowing = dg.AssetIn(["reviews", "results"], metadata={"allow_missing_partitions": True})
    got: list[Any] = []

    @dg.asset(ins={"results": allowing})
    def downstream(results: pa.Table) -> None:
        got.append(results)

    run(downstream)
    assert texts(got[0]) == [f"{key} {row}" for key in (KEYS[0], *KEYS[2:]) for row in "ab"]
    for key in KEYS:
        lake.delete("reviews", "results", key)
    with pytest.raises(MissingPartition, match="none of them exists"):
        run(downstream)


def test_an_annotation_that_cannot_be_loaded_is_named(run: Run) -> None:
    with pytest.raises(OndineError, match="Input results: it is annotated as dict"):
        run(an_asset(dict, [], partitioned=True), KEYS[0])


def test_what_our_files_note_of_themselves_is_not_in_the_table(run: Run, lake: Lake) -> None:
    lake.write("reviews", "results", KEYS[0], SCHEMA.empty_table(), {"ondine.red": "false"})
    got: list[Any] = []
    assert run(an_asset(pa.Table, got, partitioned=True), KEYS[0]).success
    assert not got[0].schema.metadata


FRAME = pd.DataFrame({"text": ["b", "a"], "n": [2, 1], "_position": [9, 3]})


@pytest.mark.parametrize(
    "make",
    [
        lambda: FRAME,
        lambda: pa.Table.from_pandas(FRAME),
        lambda: pl.DataFrame(FRAME.to_dict("list")),
        lambda: duckdb.connect().from_arrow(pa.Table.from_pandas(FRAME)),
    ],
    ids=["pandas", "arrow", "polars", "duckdb"],
)
def test_what_an_asset_returns_comes_back_as_it_was(
    run: Run, lake: Lake, make: Callable[[], Any]
) -> None:
    @dg.asset(key=["reviews", "mine"])
    def mine() -> Any:
        return make()

    result = run(mine)
    (event,) = result.asset_materializations_for_node("reviews__mine")
    assert event.metadata["dagster/row_count"].value == 2
    assert event.metadata["path"].value == str(lake.path("reviews", "mine", None))
    stored = lake.read("reviews", "mine", None)
    assert stored.to_pylist() == FRAME.to_dict("records")  # with its own order
    for annotation in (pd.DataFrame, pa.Table, pl.DataFrame, duckdb.DuckDBPyRelation):
        assert texts(loaded_again(run, annotation, mine)) == ["b", "a"]


def loaded_again(run: Run, annotation: Any, upstream: Any) -> Any:
    got: list[Any] = []

    def again(mine):  # type: ignore[no-untyped-def]
        got.append(mine)

    again.__annotations__ = {"mine": annotation, "return": None}
    run(dg.asset(ins={"mine": dg.AssetIn(upstream.key)})(again), others=(upstream,))
    return got[0]


@pytest.mark.parametrize("key", [["mine"], ["a", "b", "mine"], ["_ODD_1", "mine"]])
def test_any_asset_key_has_a_place_in_the_lake(run: Run, lake: Lake, key: list[str]) -> None:
    @dg.asset(key=key)
    def mine() -> pd.DataFrame:
        return FRAME

    run(mine)
    assert list(loaded_again(run, pd.DataFrame, mine)["n"]) == [2, 1]
    files = {path for path in lake.root.rglob("mine.parquet") if path.is_file()}
    assert len(files) == 1
    assert files.pop().parent.name == "mine"


def test_a_partition_of_ones_own_is_stored_per_key_and_loaded_as_a_range(
    run: Run, lake: Lake
) -> None:
    @dg.asset(ins=ins(), partitions_def=PARTITIONS)
    def mine(results: pd.DataFrame) -> pd.DataFrame:
        return results[["text"]].iloc[::-1]

    for key in KEYS:
        run(mine, key)
    assert (lake.root / "mine" / "rows-00002.parquet").is_file()
    expected = [f"{key} {row}" for key in KEYS for row in "ba"]
    assert texts(loaded_again(run, pd.DataFrame, mine)) == expected
    assert texts(loaded_again(run, pa.Table, mine)) == expected
    assert texts(loaded_again(run, duckdb.DuckDBPyRelation, mine)) == expected


def test_an_index_with_a_name_is_kept(run: Run) -> None:
    @dg.asset
    def mine() -> pd.DataFrame:
        return FRAME.groupby("text").sum()

    run(mine)
    frame = loaded_again(run, pd.DataFrame, mine)
    assert (frame.index.name, list(frame.index)) == ("text", ["a", "b"])


def test_one_output_for_several_partitions_is_refused_with_a_way_out(run: Run) -> None:
    @dg.asset(ins=ins(), partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
    def mine(results: pd.DataFrame) -> pd.DataFrame:
        return results

    with pytest.raises(
        OndineError, match=r"mine returned one table for 6 partitions \(rows-0"
    ) as e:
        run(mine, *KEYS)
    assert "BackfillPolicy.multi_run(1)" in str(e.value)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1, 2], "returned list, which cannot be stored. .*-> None"),
        (pd.DataFrame({"a": ["x", 1]}), "cannot be stored: .*one type"),
        (pd.DataFrame({"a": ["\ud83d"]}), "cannot be stored: .*surrogates"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    run: Run, lake: Lake, returned: Any, message: str
) -> None:
    @dg.asset
    def mine() -> Any:
        return returned

    with pytest.raises(OndineError, match=f"mine .*{message}|What mine .*{message}"):
        run(mine)
    assert not list(lake.root.glob("mine/*"))


def test_outputs_of_plain_ops_pass_through_without_a_view(tmp_path: Path) -> None:
    @dg.op(out=dg.Out(io_manager_key="lake"))
    def make() -> pd.DataFrame:
        return FRAME

    @dg.op
    def count(frame: pa.Table) -> int:
        return len(frame)

    @dg.job(resource_defs={"lake": DuckDBIOManager(root=str(tmp_path / "lake"))})
    def both() -> None:
        count(make())

    assert both.execute_in_process().output_for_node("count") == 2
    assert view_statements(Lake(tmp_path / "lake")) == []
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 1


def test_a_lake_elsewhere_is_refused() -> None:
    @dg.asset
    def mine() -> pd.DataFrame:
        return FRAME

    with pytest.raises(dg.DagsterResourceFunctionError) as error:
        dg.materialize([mine], resources={"io_manager": DuckDBIOManager(root="s3://bucket/lake")})
    assert "s3://bucket/lake is not supported yet" in str(error.value.__cause__)
