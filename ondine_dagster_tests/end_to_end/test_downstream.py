"""Assets that people write on top of our results; the code is the page's own."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from doc_pages import Page

from ondine_dagster.storage.views import connect
from ondine_dagster_tests.workbench import RESULTS, Bench, MakeBench, numbered

PAGE = Path(__file__).resolve().parents[2] / "docs" / "downstream-assets.md"
SENTIMENTS = ["positive", "negative", "neutral"]


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    bench = make_bench(
        numbered(40),
        name="product_reviews",
        output={"fields": {"sentiment": {"type": "string", "enum": SENTIMENTS}}},
    )
    bench.snapshot()
    return bench


@pytest.fixture
def people(tmp_path: Path) -> dict[str, dg.AssetsDefinition]:
    """Return the assets of the page, by name, saved and loaded as a reader would."""
    assets: dict[str, dg.AssetsDefinition] = {}
    for block in Page(PAGE, PAGE.read_text(encoding="utf-8")).blocks():
        file = tmp_path / (block.note("file") or "")
        file.write_text(block.text, encoding="utf-8")
        module = runpy.run_path(str(file))
        assets |= {k: v for k, v in module.items() if isinstance(v, dg.AssetsDefinition)}
    assert assets.keys() == {"sentiments", "totals"}
    return assets


def _project(bench: Bench, people: dict[str, dg.AssetsDefinition]) -> dg.Definitions:
    """Return one code location with our assets and theirs."""
    return dg.Definitions.merge(bench.definitions, dg.Definitions(assets=list(people.values())))


def _run(bench: Bench, project: dg.Definitions, asset: str, **options: Any) -> bool:
    return dg.materialize(
        list(project.assets or ()),
        selection=[dg.AssetKey(asset)],
        instance=bench.instance,
        resources=dict(project.resources or {}),
        **options,
    ).success


def _expected(bench: Bench, keys: list[str] | None = None) -> dict[str, int]:
    return dict(Counter(row["sentiment"] for row in bench.rows(RESULTS, keys)))


def _stored(bench: Bench, *place: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = bench.data.joinpath("lake", *place).with_suffix(".parquet")
    return list(pq.read_table(file).to_pylist())


def test_the_assets_of_the_page_load_beside_ours(
    bench: Bench, people: dict[str, dg.AssetsDefinition]
) -> None:
    dg.Definitions.validate_loadable(_project(bench, people))


def test_one_partition_goes_into_pandas_and_all_into_sql(
    bench: Bench, people: dict[str, dg.AssetsDefinition]
) -> None:
    bench.run()
    project = _project(bench, people)
    for key in bench.partitions():
        assert _run(bench, project, "sentiments", partition_key=key)
        counted = {row["sentiment"]: row["reviews"] for row in _stored(bench, "sentiments", key)}
        assert counted == _expected(bench, [key])

    assert _run(bench, project, "totals")
    totals = _stored(bench, "totals", "totals")
    assert [row["sentiment"] for row in totals] == sorted(_expected(bench))
    assert {row["sentiment"]: row["reviews"] for row in totals} == _expected(bench)
    shown = connect(bench.lake).sql("SELECT sentiment FROM totals ORDER BY 1").fetchall()
    assert [sentiment for (sentiment,) in shown] == sorted(_expected(bench))
    assert sum(row["usd"] for row in totals) == sum(r["_cost_usd"] for r in bench.rows(RESULTS))


def test_a_range_arrives_as_one_table_in_order(bench: Bench) -> None:
    arrived: list[list[int]] = []

    @dg.asset(
        ins={"results": dg.AssetIn(["product_reviews", "results"])},
        partitions_def=dg.DynamicPartitionsDefinition(name="product_reviews"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def positions(results: Any) -> None:
        arrived.append(list(results["_position"]))

    bench.run()
    keys = bench.partitions()
    tags = {
        "dagster/asset_partition_range_start": keys[1],
        "dagster/asset_partition_range_end": keys[2],
    }
    assert _run(bench, _project(bench, {"positions": positions}), "positions", tags=tags)
    assert arrived == [list(range(10, 30))]


@pytest.mark.filterwarnings("ignore:.*varying BackfillPolicies")
def test_an_asset_of_theirs_runs_in_the_run_that_makes_our_partition(
    bench: Bench, people: dict[str, dg.AssetsDefinition]
) -> None:
    project = _project(bench, people)
    key = bench.partitions()[0]
    assets = ("raw_rows", "prompts", "responses", "results", "rejected_rows")
    result = dg.materialize(
        list(project.assets or ()),
        selection=[*(bench.key(asset) for asset in assets), dg.AssetKey("sentiments")],
        instance=bench.instance,
        resources=dict(project.resources or {}),
        partition_key=key,
    )
    assert result.success
    assert sum(row["reviews"] for row in _stored(bench, "sentiments", key)) == 10


def test_missing_partitions_are_named_until_they_may_be_missing(
    bench: Bench, people: dict[str, dg.AssetsDefinition]
) -> None:
    bench.run("rows-00000", "rows-00001")

    def taking(metadata: dict[str, Any] | None) -> dg.AssetsDefinition:
        @dg.asset(
            ins={"results": dg.AssetIn(["product_reviews", "results"], metadata=metadata)},
            io_manager_key="ondine_io_manager",
        )
        def count(results: Any) -> Any:
            return results[["id"]]

        return count

    with pytest.raises(Exception, match="rows-00002, rows-00003"):
        _run(bench, _project(bench, {"count": taking(None)}), "count")
    allowed = taking({"allow_missing_partitions": True})
    assert _run(bench, _project(bench, {"count": allowed}), "count")
    assert len(_stored(bench, "count", "count")) == 20
