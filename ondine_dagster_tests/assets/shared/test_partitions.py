"""Red and green partitions of a range run, and the events that tell Dagster about them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest

from ondine_dagster.ledger.unknowns import resolve, unknown_attempts
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import (
    PARTITIONED,
    PROMPTS,
    RAW,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    numbered,
)

TRIO = (RESPONSES, RESULTS, REJECTED)
# The connection breaks once after the request was read. With max_unknown 0 the row is held; when a
# person has resolved it, the next request gets its answer.
BREAKS_ONCE = "[[token=t{n}]] [[fault=reset_after times=1]] row {n}"
RED = {"rows-00002", "rows-00005"}


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until `condition` holds. Dagster's instance has no event that a test could wait for."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)


def eight_partitions() -> list[dict[str, str]]:
    """Return 80 rows in partitions of 10; three rows in two of the partitions break."""
    rows = numbered(80)
    for n in (20, 29, 55):
        rows[n]["text"] = BREAKS_ONCE.replace("{n}", str(n))
    return rows


@pytest.fixture
def broken(make_bench: MakeBench) -> Bench:
    """Return a bench after a range run of eight partitions, two of which failed."""
    bench = make_bench(eight_partitions(), limits={"max_unknown": 0})
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    assert not result.success
    return bench


@pytest.mark.behaviour("E-10")
@pytest.mark.behaviour("B-1d")
def test_two_bad_partitions_of_a_range_are_red_and_six_are_green(broken: Bench) -> None:
    everything = set(broken.partitions())
    for asset in TRIO:
        assert broken.partitions_in_ui(asset) == (everything - RED, RED), asset
    for asset in (RAW, PROMPTS):
        assert broken.partitions_in_ui(asset) == (everything, set()), asset
    assert {key for key, state in broken.states().items() if state == "failed"} == RED


@pytest.mark.behaviour("E-10")
def test_a_red_partition_keeps_what_is_known_of_it(broken: Bench) -> None:
    assert len(broken.rows(RESULTS, sorted(RED))) == 17
    held = broken.rows(REJECTED, sorted(RED))
    assert [row["id"] for row in held] == ["r20", "r29", "r55"]
    assert {row["_outcome"] for row in held} == {"held"}
    assert {(row["_error_class"], row["_error_code"]) for row in held} == {
        ("unknown", "unknown_held")
    }
    assert all("ledger resolve" in row["_error_message"] for row in held)
    assert broken.table(REJECTED, sorted(set(broken.partitions()) - RED)).num_rows == 0


def test_a_failed_run_names_its_red_partitions_and_what_to_do(make_bench: MakeBench) -> None:
    bench = make_bench(eight_partitions(), limits={"max_unknown": 0})
    bench.snapshot()
    with pytest.raises(dg.Failure) as caught:
        bench.run()
    message = str(caught.value)
    assert "2 partitions not complete (rows-00002, rows-00005)" in message
    assert "3 rows waiting for another run" in message
    assert "ledger resolve" in message


@pytest.mark.behaviour("A-30")
def test_after_the_remedy_the_red_partitions_pay_only_for_what_is_missing(
    broken: Bench, simulator: Simulator
) -> None:
    before = simulator.bill.totals.charged
    with broken.ledger.database.read() as connection:
        unknown = [one.id for one in unknown_attempts(connection)]
    assert len(unknown) == 3
    resolve(broken.ledger.database, unknown, "free")
    for key in sorted(RED):
        assert broken.run(key).success
    assert simulator.bill.totals.charged == before + 3
    assert broken.partitions_in_ui(RESULTS) == (set(broken.partitions()), set())
    assert broken.table(RESULTS).num_rows == 80
    assert broken.contradictions() == []


@pytest.mark.behaviour("E-10")
def test_a_run_that_answers_fewer_rows_does_not_replace_a_file_that_answers_more(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(10))
    bench.snapshot()
    bench.run()
    answered = bench.table(RESULTS)
    bench.lose_answers()
    simulator.settings = replace(simulator.settings, api_key="not ours")
    result = bench.run(raise_on_error=False)
    assert not result.success
    assert bench.table(RESULTS).equals(answered)
    assert bench.table(REJECTED).num_rows == 0


@pytest.mark.parametrize("asset", TRIO)
def test_the_event_of_a_partition_has_versions_rows_and_money(
    make_bench: MakeBench, asset: str
) -> None:
    bench = make_bench(numbered(20))
    bench.snapshot()
    bench.run("rows-00000")
    events = bench.events(asset)
    assert {event.partition_key for event in events} == {"rows-00000"}
    for event in events:  # logged when the partition was done, and once more when the step was
        materialization = event.asset_materialization
        assert materialization is not None
        tags, metadata = materialization.tags or {}, materialization.metadata
        assert tags["dagster/code_version"] == _spec(bench, asset).code_version
        assert tags["dagster/data_version"]
        rows = {RESPONSES: 10, RESULTS: 10, REJECTED: 0}[asset]
        assert metadata["dagster/partition_row_count"].value == rows
        if asset == RESPONSES:
            assert metadata["rows_answered"].value == 10
            assert metadata["requests"].value == 10
            cost = metadata["cost_usd"].value
            assert cost == pytest.approx(sum(a.cost for a in bench.attempts()) / 1e12)


def _spec(bench: Bench, asset: str) -> dg.AssetSpec:
    specs = {
        spec.key: spec
        for definition in bench.definitions.assets or ()
        if isinstance(definition, dg.AssetsDefinition)
        for spec in definition.specs
    }
    return specs[bench.key(asset)]


def test_every_partition_of_a_range_has_its_own_metadata(make_bench: MakeBench) -> None:
    rows = numbered(30)
    rows[4]["text"] = "[[fault=refusal]] row 4"
    bench = make_bench(rows)
    bench.snapshot()
    bench.run()
    for asset, expected in ((RESULTS, [9, 10, 10]), (REJECTED, [1, 0, 0]), (RESPONSES, [10] * 3)):
        last = {e.partition_key: e.asset_materialization for e in bench.events(asset)}
        assert sorted(last) == bench.partitions()
        found = [last[key].metadata["dagster/partition_row_count"].value for key in sorted(last)]
        assert found == expected, asset
        for key, materialization in last.items():
            tags = materialization.tags or {}
            assert tags["dagster/code_version"] == _spec(bench, asset).code_version, key
            assert tags["dagster/data_version"], key


def test_a_partition_with_other_answers_has_another_data_version(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(20))
    bench.snapshot()
    for key in (*bench.partitions(), "rows-00000"):
        bench.run(key)
    seen = [
        (event.partition_key, (event.asset_materialization.tags or {})["dagster/data_version"])
        for event in bench.events(RESULTS)
        if event.asset_materialization
    ]
    assert len(set(seen)) == 2, "the same answers have the same version, in whatever run"
    assert len({version for _, version in seen}) == 2


def test_the_columns_of_results_are_shown_before_and_after_a_run(make_bench: MakeBench) -> None:
    fields = {
        "label": {"type": "string", "enum": ["a", "b"], "column": "verdict"},
        "score": {"type": "integer", "description": "From 0 to 10."},
    }
    bench = make_bench(numbered(2), output={"fields": fields})
    shown = _spec(bench, RESULTS).metadata["dagster/column_schema"]
    columns = {column.name: column for column in shown.columns}
    assert columns["verdict"].type == "string"
    assert columns["score"].description == "From 0 to 10."


@pytest.mark.two_threads
def test_finished_partitions_are_green_while_another_still_runs(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(40))
    bench.snapshot()
    paid = ["rows-00000", "rows-00001"]
    bench.run(*paid)  # the range run below finishes these two at once
    seen = {asset: len(bench.events(asset)) for asset in TRIO}
    simulator.hold()
    running = threading.Thread(target=bench.run)
    running.start()
    try:
        until(
            lambda: all(
                {event.partition_key for event in bench.events(asset)[seen[asset] :]} == set(paid)
                for asset in TRIO
            ),
            "events of the two finished partitions while the others are held back",
        )
        assert bench.table(RESULTS, paid).num_rows == 20
    finally:
        simulator.release()
        running.join()
    assert {event.partition_key for event in bench.events(RESULTS)} == set(bench.partitions())


def test_the_report_passes_its_check_only_when_every_row_has_an_outcome(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(30))
    bench.snapshot()
    bench.run("rows-00000", "rows-00001")
    (check,) = bench.report().get_asset_check_evaluations()
    assert not check.passed
    assert check.metadata["without_outcome"].value == 10
    bench.run("rows-00002")
    (check,) = bench.report().get_asset_check_evaluations()
    assert check.passed
    (_, event) = bench.events("report")
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert (metadata["rows"].value, metadata["results"].value) == (30, 30)
    assert metadata["requests"].value == 30
    settled = metadata["settled_usd"].value
    assert settled == pytest.approx(sum(a.cost for a in bench.attempts()) / 1e12)
    assert "3 done" in str(metadata["report"].value)


def test_the_stages_below_a_missing_snapshot_say_what_to_materialize(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(10))
    bench.instance.add_dynamic_partitions("notes", ["rows-00000"])
    with pytest.raises(dg.Failure, match="Materialize notes/snapshot first"):
        dg.materialize(
            list(bench.definitions.assets or ()),
            selection=[bench.key(asset) for asset in PARTITIONED],
            instance=bench.instance,
            resources=dict(bench.definitions.resources or {}),
            partition_key="rows-00000",
        )
