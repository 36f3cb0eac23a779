"""Each kind of partitions, from the source to the bill: what runs, what waits, what is rejected."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest

from ondine_dagster.assets.shared.partitions import known_keys, partitions_def, runnable_keys
from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.views import connect
from ondine_dagster_tests.workbench import (
    PARTITIONED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    numbered,
    write_rows,
)

BERLIN = ZoneInfo("Europe/Berlin")
BY_DAY = {"column": "at", "every": "day", "timezone": "Europe/Berlin", "start": "2026-01-01"}


def dated(*times: str) -> list[dict[str, str]]:
    """Return rows `id`, `at`, `text`, one per time."""
    return [
        {"id": f"r{n}", "at": time, "text": f"[[token=t{n}]] row {n}"}
        for n, time in enumerate(times)
    ]


def with_country(*countries: str) -> list[dict[str, str]]:
    """Return rows `id`, `country`, `text`, one per country."""
    return [
        {"id": f"r{n}", "country": country, "text": f"[[token=t{n}]] row {n}"}
        for n, country in enumerate(countries)
    ]


def unassigned(bench: Bench) -> dict[str, str]:
    """Return the rows that fit no partition with the reason, as SQL shows them."""
    found = connect(bench.lake).sql(
        "SELECT id, _error_message, _error_class, _error_code, _outcome FROM notes.rejected_rows "
        "WHERE _partition = '_unassigned' ORDER BY _position"
    )
    rows = found.fetchall()
    assert {row[2:] for row in rows} <= {("row", "no_partition", "error")}
    return {row[0]: row[1] for row in rows}


def check(bench: Bench) -> dg.AssetCheckEvaluation:
    """Return the verdict on "every row has an outcome"."""
    found = bench.report().get_asset_check_evaluations()
    return next(one for one in found if one.check_name == "every_row_has_an_outcome")


@pytest.mark.behaviour("B-9")
@pytest.mark.behaviour("E-10")
def test_windows_of_time_run_when_they_are_over_and_other_rows_are_rejected(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    today = datetime.now(BERLIN)
    rows = dated(
        "2026-01-02T23:30",  # naive: in Berlin
        "2026-01-02T23:30Z",  # the next day in Berlin
        "2026-01-02",
        "",
        "soon",
        "2025-12-31T23:59",
        today.isoformat(),
    )
    bench = make_bench(rows, partitions={"time": BY_DAY})
    bench.snapshot()
    event = bench.events("snapshot")[-1].asset_materialization
    assert event is not None
    assert event.metadata["unassigned_rows"].value == 3
    open_day = today.strftime("%Y-%m-%d")
    assert bench.partitions() == ["2026-01-02", "2026-01-03", open_day]
    assert bench.states()[open_day] == "open"
    assert runnable_keys(bench.pipeline, bench.pipeline.snapshot(bench.lake), bench.instance) == [
        "2026-01-02",
        "2026-01-03",
    ]
    assert unassigned(bench) == {
        "r3": "at is empty, so the row has no time",
        "r4": "at is 'soon', which is no date, timestamp or ISO text",
        "r5": "at is '2025-12-31T23:59', before the first day of 2026-01-01 00:00 Europe/Berlin",
    }
    assert bench.run_missing() == ["2026-01-02", "2026-01-03"]
    assert simulator.bill.totals.charged == 3
    assert [row["id"] for row in bench.rows(RESULTS, ["2026-01-02"])] == ["r0", "r2"]
    verdict = check(bench)
    assert verdict.passed
    assert {name: verdict.metadata[name].value for name in ("rows", "unassigned", "open")} == {
        "rows": 4,
        "unassigned": 3,
        "open": 1,
    }


def test_a_window_without_rows_ends_green_with_none(make_bench: MakeBench) -> None:
    bench = make_bench(dated("2026-01-02", "2026-01-05"), partitions={"time": BY_DAY})
    bench.snapshot()
    assert bench.run("2026-01-02", "2026-01-05").success
    assert bench.table(RESULTS, ["2026-01-03"]).num_rows == 0
    assert bench.table(RESULTS, ["2026-01-02", "2026-01-05"]).num_rows == 2
    green, red = bench.partitions_in_ui(RESULTS)
    assert (len(green), red) == (4, set())


@pytest.mark.parametrize(
    "partitions",
    [{"time": BY_DAY}, {"values": {"column": "at", "listed": ["2026-01-02", "2026-01-05"]}}],
)
def test_a_partition_that_lost_its_rows_runs_once_more_and_is_empty(
    partitions: Any, make_bench: MakeBench, simulator: Simulator
) -> None:
    """Dagster has it nevertheless, and whoever loads it must not find what moved."""
    bench = make_bench(dated("2026-01-02", "2026-01-05"), partitions=partitions)
    bench.run_missing()
    rows = dated("2026-01-05", "2026-01-05")
    write_rows(bench.folder / "notes.csv", rows)
    assert bench.run_missing() == ["2026-01-02", "2026-01-05"]
    assert bench.table(RESULTS, ["2026-01-02"]).num_rows == 0
    assert bench.table(RESULTS, ["2026-01-05"]).num_rows == 2
    assert bench.run_missing() == []
    assert simulator.bill.totals.charged == 2


@pytest.mark.behaviour("B-9")
def test_listed_values_are_partitions_and_others_are_rejected(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = with_country("de", "fr", "it", "", "de", "Korea, Republic of")
    listed = ["de", "fr", "Korea, Republic of", "es"]
    values = {"column": "country", "listed": listed}
    bench = make_bench(rows, partitions={"values": values})
    bench.snapshot()
    known = known_keys(bench.pipeline, bench.instance)
    assert known[:2] == ["de", "fr"]
    assert known[2].startswith("Korea- Republic of-")
    assert unassigned(bench) == {
        "r2": "country is 'it', which is not listed",
        "r3": "country is empty",
    }
    assert bench.run(known[0], known[-1]).success  # es has no rows
    assert simulator.bill.totals.charged == 4
    assert check(bench).passed


@pytest.mark.behaviour("B-9")
def test_discovered_values_become_partitions_and_a_row_moves_with_its_value(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = with_country("de", "fr", "de")
    bench = make_bench(rows, partitions={"values": {"column": "country"}})
    assert bench.run_missing() == ["de", "fr"]
    rows[0]["country"] = "it"
    write_rows(bench.folder / "notes.csv", rows)
    bench.snapshot()
    assert bench.states() == {"de": "changed", "fr": "done", "it": "missing"}
    assert bench.run_missing() == ["de", "it"]
    assert [row["id"] for row in bench.rows(RESULTS)] == ["r2", "r1", "r0"]
    assert simulator.bill.totals.charged == 3, "the same question is paid once, wherever it is"


def write_files(bench: Bench, **files: list[dict[str, str]]) -> None:
    (bench.folder / "in").mkdir(exist_ok=True)
    for name, rows in files.items():
        write_rows(bench.folder / "in" / f"{name}.csv", rows)


@pytest.mark.behaviour("B-9")
def test_files_are_partitions_that_come_change_and_go(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(source={"key": "id"}, partitions={"files": "in/*.csv"})
    with pytest.raises(dg.Failure, match=r"no file matches 'in/\*.csv'"):
        bench.snapshot()
    write_files(bench, a=numbered(2), b=numbered(2, first=2))
    assert bench.run_missing() == ["a", "b"]
    write_files(bench, b=numbered(3, first=2), c=numbered(1, first=5))
    (bench.folder / "in" / "a.csv").unlink()
    bench.snapshot()
    assert bench.states() == {"b": "changed", "c": "missing"}
    assert known_keys(bench.pipeline, bench.instance) == ["b", "c"]
    assert bench.run_missing() == ["b", "c"]
    assert simulator.bill.totals.charged == 6
    assert check(bench).passed


def test_files_tell_their_window_by_their_names(make_bench: MakeBench) -> None:
    time = {"filename": "in/orders_%Y%m%d*.csv", "every": "day", "start": "2026-01-01"}
    bench = make_bench(source={"key": "id"}, partitions={"time": time})
    write_files(
        bench,
        orders_20260102=numbered(1),
        orders_20260102_late=numbered(1, first=1),
        orders_20251231=numbered(1, first=2),
        orders_20269999=numbered(1, first=3),
    )
    assert bench.run_missing() == ["2026-01-02"]
    assert bench.table(RESULTS).num_rows == 2
    assert list(unassigned(bench)) == ["r2", "r3"]
    assert "does not fit in/orders_%Y%m%d*.csv" in unassigned(bench)["r3"]


@pytest.mark.behaviour("B-9")
def test_without_partitions_assets_are_materialized_whole(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(3), partitions="none")
    assert partitions_def(bench.pipeline) is None
    assert bench.run_missing() == ["all"]
    for asset in PARTITIONED:
        assert {event.partition_key for event in bench.events(asset)} == {None}, asset
    metadata = bench.events(RESPONSES)[-1].asset_materialization
    assert metadata is not None
    assert metadata.metadata["rows_answered"].value == 3
    assert bench.states() == {"all": "done"}
    assert check(bench).passed
    assert simulator.bill.totals.charged == 3


def test_without_partitions_and_without_rows_everything_is_green(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(1), partitions="none")
    bench.run_missing()
    (bench.folder / "notes.csv").write_text("id,text\n")
    assert bench.run_missing() == ["all"]
    assert bench.table(RESULTS).num_rows == 0
    assert check(bench).passed


KINDS: list[Any] = [
    "none",
    {"values": {"column": "country"}},
    {"values": {"column": "country", "listed": ["de", "fr", "it"]}},
    {"time": {"column": "at", "every": "month", "start": "2026-01-01"}},
    {"rows": 2},
]


def test_another_kind_makes_other_partitions_and_buys_nothing(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = [{**one, "country": "de", "at": "2026-02-03"} for one in numbered(4)]
    bench = make_bench(rows, partitions={"rows": 2})
    bench.run_missing()
    kinds = [*KINDS, {"rows": 2}]
    seen = []
    for partitions in kinds:
        attributes = bench.dataset.model_dump(mode="json", exclude_unset=True)
        bench.declare({**attributes, "partitions": partitions})
        bench.run_missing()
        seen.append(bench.partitions())
        assert bench.table(RESULTS).num_rows == 4
    assert seen == [
        ["all"],
        ["de"],
        ["de"],
        ["2026-02-01"],
        ["rows-00002", "rows-00003"],  # numbers are never used again
        ["rows-00002", "rows-00003"],
    ]
    assert list(known_keys(bench.pipeline, bench.instance)) == seen[-1]
    assert simulator.bill.totals.charged == 4
    assert connect(bench.lake).sql("SELECT count(*) FROM notes.results").fetchall() == [(4,)]


def test_a_change_of_the_kind_is_said(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2), partitions={"rows": 2})
    bench.snapshot()
    bench.declare(
        {**bench.dataset.model_dump(mode="json", exclude_unset=True), "partitions": "none"}
    )
    entries = bench.instance.all_logs(bench.snapshot().run_id)
    assert any("made by rows before, and are now made by none" in one.message for one in entries)


@pytest.mark.parametrize("partitions", KINDS)
def test_downstream_assets_load_one_a_range_or_all(partitions: Any, make_bench: MakeBench) -> None:
    rows = [
        {**one, "country": country, "at": f"2026-0{month}-03"}
        for one, country, month in zip(
            numbered(4), ("de", "de", "it", "it"), (1, 1, 3, 3), strict=True
        )
    ]
    bench = make_bench(rows, partitions=partitions)
    bench.run_missing()
    loaded: list[list[str]] = []

    def load(results: pd.DataFrame) -> None:
        loaded.append(results["id"].tolist())

    definition = partitions_def(bench.pipeline)
    ins = {"results": dg.AssetIn(bench.key(RESULTS))}
    same = dg.asset(name="same", ins=ins, partitions_def=definition)(load)
    whole = dg.asset(name="whole", ins=ins)(load)
    for asset, tags in ((whole, {}), (same, bench_tags(bench))):
        dg.materialize(
            [*(bench.definitions.assets or ()), asset],  # type: ignore[list-item]
            selection=[asset.key],
            instance=bench.instance,
            resources=dict(bench.definitions.resources or {}),
            tags=tags,
        )
    assert loaded == [["r0", "r1", "r2", "r3"]] * 2


def bench_tags(bench: Bench) -> dict[str, str]:
    """Return the tags of a run over all partitions, also those without rows between them."""
    if bench.dataset.partitions.kind == "none":
        return {}
    keys = bench.partitions()
    return {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
