"""Schedule and sensors, in a real instance: what runs by itself, once, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.assets.automatic import FOLLOW_UP, WATCH, Daemon, ranges
from ondine_dagster_tests.workbench import Bench, MakeBench, numbered, write_rows

TOMORROW = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) + timedelta(days=1)


def write(bench: Bench, rows: int) -> None:
    write_rows(bench.folder / "notes.csv", numbered(rows))


def take(daemon: Daemon) -> list[dg.DagsterRun]:
    """Let the watch sensor tick until it is sure, and run what it asks for."""
    assert daemon.asks(WATCH) == []
    return daemon.snapshot(daemon.asks(WATCH))


@pytest.mark.behaviour("B-9")
def test_one_switch_labels_a_fresh_project_and_then_what_is_new(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(25))
    daemon = Daemon(bench)
    take(daemon)
    assert ranges(daemon.follow()) == [("rows-00000", "rows-00002")]
    assert simulator.bill.totals.charged == 25
    (report,) = daemon.follow()
    assert report.asset_selection == {bench.key("report")}
    assert bench.events("report")[-1].asset_materialization is not None
    assert daemon.follow() == []
    assert daemon.asks(WATCH) == []
    daemon.restart()
    write(bench, 32)
    take(daemon)
    assert ranges(daemon.follow()) == [("rows-00003", "rows-00003")]
    assert simulator.bill.totals.charged == 32


def test_nothing_follows_a_snapshot_that_a_person_took(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(5))
    daemon = Daemon(bench)
    bench.snapshot()
    assert daemon.follow() == []
    assert simulator.bill.totals.requests == 0


def test_many_partitions_are_cut_into_runs_that_share_a_budget(make_bench: MakeBench) -> None:
    bench = make_bench(
        numbered(25),
        partitions={"rows": 5},
        run_partitions=2,
        limits={"budgets": [{"requests": 12, "per": "run"}]},
    )
    daemon = Daemon(bench)
    take(daemon)
    runs = daemon.follow()
    assert ranges(runs) == [
        ("rows-00000", "rows-00001"),
        ("rows-00002", "rows-00003"),
        ("rows-00004", "rows-00004"),
    ]
    assert [run.is_success for run in runs] == [True, False, False]
    assert len(bench.attempts()) == 12


def test_what_failed_is_not_run_again_when_other_rows_change(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(20))
    daemon = Daemon(bench)
    simulator.fail(FaultPlan(rates={"401": 1.0}))
    take(daemon)
    assert [run.is_success for run in daemon.follow()] == [False]
    simulator.fail(FaultPlan())
    daemon.follow()  # the report
    write(bench, 30)
    take(daemon)
    assert ranges(daemon.follow()) == [("rows-00002", "rows-00002")]


def test_a_partition_that_fails_without_a_file_is_left_until_it_changes_or_the_schedule_ticks(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(20), schedule="0 6 * * *")
    daemon = Daemon(bench)
    take(daemon)
    asked = daemon.asks(FOLLOW_UP)
    file = bench.pipeline.snapshot(bench.lake).path
    hidden = file.rename(file.with_suffix(".hidden"))
    assert [run.is_success for run in daemon.run(asked, "notes__label")] == [False]
    hidden.rename(file)
    daemon.follow()  # the report
    write(bench, 21)
    take(daemon)
    assert ranges(daemon.follow()) == [("rows-00002", "rows-00002")]
    daemon.follow()
    daemon.snapshot(daemon.asks_at(TOMORROW))
    assert ranges(daemon.follow()) == [("rows-00000", "rows-00001")]
    assert simulator.bill.totals.charged == 21


def test_partitions_that_a_run_or_a_backfill_works_on_are_left_to_it(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench(numbered(50))
    daemon = Daemon(bench)
    take(daemon)
    _start_run(bench, "rows-00000")
    _start_backfill(bench, "rows-00003")
    asked = [one.tags["dagster/asset_partition_range_start"] for one in daemon.asks(FOLLOW_UP)]
    assert asked == ["rows-00001", "rows-00004"]


def _start_run(bench: Bench, key: str) -> None:
    repository = bench.definitions.get_repository_def()
    job = repository.get_job("notes__label")
    run = bench.instance.create_run_for_job(job, tags={"dagster/partition": key})
    bench.instance.report_dagster_event(_started(run), run.run_id)


def _started(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, run.job_name)


def _start_backfill(bench: Bench, key: str) -> None:
    from dagster._core.execution.backfill import PartitionBackfill

    graph = bench.definitions.get_repository_def().asset_graph
    backfill = PartitionBackfill.from_asset_partitions(
        "abcdefgh",
        asset_graph=graph,
        partition_names=[key],
        asset_selection=[bench.key(asset) for asset in ("raw_rows", "prompts", "responses")],
        backfill_timestamp=datetime.now(UTC).timestamp(),
        tags={},
        dynamic_partitions_store=bench.instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    bench.instance.add_backfill(backfill)


def test_a_snapshot_that_fails_is_not_taken_again_until_the_source_changes(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench([{"id": "twice", "text": "a"}, {"id": "twice", "text": "b"}])
    daemon = Daemon(bench)
    (failed,) = take(daemon)
    assert not failed.is_success
    assert daemon.follow() == []
    assert daemon.asks(WATCH) == daemon.asks(WATCH) == []
    write(bench, 5)
    take(daemon)
    assert len(ranges(daemon.follow())) == 1
    assert simulator.bill.totals.charged == 5


def test_a_source_that_loses_rows_is_reported_and_one_that_loses_all_is_not_taken(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(30))
    daemon = Daemon(bench)
    take(daemon)
    daemon.follow()
    daemon.follow()
    write(bench, 12)
    take(daemon)
    event = bench.events("snapshot")[-1].asset_materialization
    assert event is not None
    assert event.metadata["rows_gone"].value == 18
    assert bench.lake.partitions("notes", "results") == ["rows-00000", "rows-00001", "rows-00002"]
    daemon.follow()
    before = bench.states()
    (bench.folder / "notes.csv").write_text("id,text\n")
    (failed,) = take(daemon)
    assert not failed.is_success
    assert bench.states() == before
    (bench.folder / "notes.csv").unlink()
    assert daemon.asks(WATCH) == []
    assert "gone" in daemon.skipped
    assert bench.states() == before
    assert simulator.bill.totals.charged == 30


def test_new_files_are_noticed_and_only_their_partitions_run(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    (folder := make_bench(numbered(1)).folder / "in").mkdir()
    for name in "ab":
        write_rows(folder / f"{name}.csv", [{"id": name, "text": name}])
    bench = make_bench(source={"key": "id"}, partitions={"files": "in/*.csv"})
    daemon = Daemon(bench)
    take(daemon)
    assert len(ranges(daemon.follow())) == 1
    assert simulator.bill.totals.charged == 2
    write_rows(folder / "c.csv", [{"id": "c", "text": "c"}])
    take(daemon)
    (run,) = daemon.follow()
    assert ranges([run]) == [(bench.partitions()[-1],) * 2]
    assert simulator.bill.totals.charged == 3


def test_a_dataset_without_partitions_follows_as_a_whole(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(7), partitions="none")
    daemon = Daemon(bench)
    take(daemon)
    assert [run.is_success for run in daemon.follow()] == [True]
    assert simulator.bill.totals.charged == 7
    write(bench, 9)
    take(daemon)
    assert [run.is_success for run in daemon.follow()] == [True]
    assert simulator.bill.totals.charged == 9


def test_closed_windows_run_and_the_open_one_waits(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    now = datetime.now(UTC)
    days = [(now - timedelta(days=back)).strftime("%Y-%m-%d") for back in (4, 3, 1, 0)]
    rows = [{"id": day, "day": day, "text": day} for day in days]
    time = {"column": "day", "every": "day", "start": days[0]}
    bench = make_bench(rows, partitions={"time": time}, schedule="@daily")
    daemon = Daemon(bench)
    daemon.snapshot(daemon.asks_at(TOMORROW))
    assert ranges(daemon.follow()) == [(days[0], days[1]), (days[2], days[2])]
    assert simulator.bill.totals.charged == 3
    event = bench.events("snapshot")[-1].asset_materialization
    assert event is not None
    assert "3 partitions with 3 rows missing" in str(event.metadata["next_step"].value)


def test_a_late_tick_of_the_schedule_leaves_the_work_to_the_one_that_is_due(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(15), schedule={"cron": "0 6 * * *", "timezone": "Europe/Berlin"})
    daemon = Daemon(bench)
    today = bench.definitions.get_repository_def().get_schedule_def("notes__schedule")
    assert today.execution_timezone == "Europe/Berlin"
    ticks = [TOMORROW - timedelta(days=back, hours=1) for back in (5, 4, 3, 0)]  # due at any hour
    for late in ticks[:-1]:
        assert daemon.asks_at(late) == ()
        assert "is late" in daemon.skipped
    daemon.snapshot(daemon.asks_at(ticks[-1]))
    assert ranges(daemon.follow()) == [("rows-00000", "rows-00001")]
    daemon.follow()
    daemon.snapshot(daemon.asks_at(TOMORROW + timedelta(days=1)))
    assert ranges(daemon.follow()) == []
    assert simulator.bill.totals.charged == 15


def test_what_spends_money_by_itself_is_off_until_it_is_switched_on(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(1), schedule="@daily")
    repository = bench.definitions.get_repository_def()
    off = {
        repository.get_schedule_def("notes__schedule").default_status.value,
        repository.get_sensor_def(WATCH).default_status.value,
    }
    assert off == {"STOPPED"}
    assert repository.get_sensor_def(FOLLOW_UP).default_status.value == "RUNNING"


def test_jobs_schedules_and_sensors_of_several_datasets_load_together(
    make_bench: MakeBench,
) -> None:
    definitions = [
        make_bench(numbered(1), name=name, schedule="@daily").definitions
        for name in ("notes", "more_notes")
    ]
    dg.Definitions.validate_loadable(dg.Definitions.merge(*definitions))
