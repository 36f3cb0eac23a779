"""Budgets in Dagster: declared at the start of a run, shown with the assets, warned of once."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.budgets import BEATS_PER_LOOK, BudgetController, BudgetWatch
from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.monitoring import heartbeat
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.ledger.limits import EVERYTHING, Limit, declare, in_force, scope_of
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Dataset
from ondine_dagster_tests.ledger.builders import ask_and_answer
from ondine_dagster_tests.workbench import RESPONSES, Bench, MakeBench, declaration, numbered

NOTES = scope_of("notes")
TWENTY = {"budgets": [{"requests": 20, "per": "total"}]}


def limits_in_force(bench: Bench) -> set[Limit]:
    with bench.ledger.database.read() as connection:
        return set(in_force(connection, [NOTES, EVERYTHING]))


def warnings(bench: Bench, result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the lines that a run logged as warnings."""
    entries = bench.instance.all_logs(result.run_id)
    return [entry.user_message for entry in entries if entry.level == logging.WARNING]


def metadata(bench: Bench) -> dict[str, Any]:
    """Return what the last materialization of `responses` says of budgets."""
    materialization = bench.events(RESPONSES)[-1].asset_materialization
    assert materialization is not None
    return {
        name: value.value
        for name, value in materialization.metadata.items()
        if name.startswith("budget")
    }


# declared


def test_a_run_puts_the_limits_of_its_dataset_and_of_all_datasets_in_force(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_BUDGET_USD_PER_DAY", "7")
    make_bench(numbered(2), limits={"budget_usd": 5, **TWENTY}).run_missing()
    bench = make_bench(numbered(3), limits={"budget_usd": 6})
    bench.run_missing()
    assert limits_in_force(bench) == {
        Limit(NOTES, "total", "usd", 6 * 10**12),
        Limit(EVERYTHING, "day", "usd", 7 * 10**12),
    }
    monkeypatch.delenv("ONDINE_BUDGET_USD_PER_DAY")
    bench = make_bench(numbered(4))
    bench.run_missing()
    assert limits_in_force(bench) == set()


def test_dagster_shows_the_budgets_over_all_datasets(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_BUDGET_USD_PER_DAY", "0.3")
    monkeypatch.setenv("ONDINE_BUDGETS", '[{"tokens": 9, "per": "run"}]')
    one = make_bench(numbered(1)).definitions
    other = build_definitions(
        Dataset.model_validate({**declaration(simulator), "name": "others"}),
        declared_in=tmp_path / "others.yaml",
        project_root=tmp_path,
    )
    shown = dg.Definitions.merge(one, other).resources
    assert shown is not None
    controller = shown["ondine_budgets"]
    assert isinstance(controller, BudgetController)
    assert controller.budgets == [{"usd": "0.3", "per": "day"}, {"tokens": 9, "per": "run"}]
    assert controller.warn_at_percent == [75, 90]


def test_budgets_that_cannot_be_read_are_refused_before_anything_runs(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_BUDGET_USD_PER_DAY", "five")
    with pytest.raises(OndineError, match="ONDINE_BUDGET_USD_PER_DAY"):
        make_bench(numbered(1))


@pytest.mark.parametrize(
    ("budget", "fits"), [({"requests": 9, "per": "month"}, True), ({"requests": 9}, False)]
)
def test_a_run_may_be_launched_with_other_budgets(
    make_bench: MakeBench, budget: dict[str, Any], fits: bool
) -> None:
    bench = make_bench(numbered(1))
    bench.snapshot()
    bench.run(assets=("raw_rows", "prompts"))
    result = dg.materialize(
        list(bench.definitions.assets or ()),
        selection=[bench.key(RESPONSES)],
        instance=bench.instance,
        resources=dict(bench.definitions.resources or {}),
        run_config={"resources": {"ondine_budgets": {"config": {"budgets": [budget]}}}},
        partition_key=bench.partitions()[0],
        raise_on_error=False,
    )
    assert result.success is fits
    if fits:
        assert limits_in_force(bench) == {Limit(EVERYTHING, "month", "requests", 9)}
    else:
        (failure,) = (event for event in result.all_events if event.is_step_failure)
        assert "`ondine_budgets.budgets[0].per` is missing" in str(failure.step_failure_data)


# warned of


def test_each_threshold_is_warned_of_once_in_the_log_and_with_the_asset(
    make_bench: MakeBench,
) -> None:
    lines, shown = [], []
    for rows in (10, 16, 17, 18):
        bench = make_bench(numbered(rows), partitions={"rows": 2}, limits=TWENTY)
        bench.snapshot()
        lines.append(warnings(bench, bench.run()))
        shown.append(metadata(bench))
    said = [[line.partition(" are used")[0] for line in found] for found in lines]
    assert said == [
        [],
        ["notes: 16 of 20 requests in total"],
        [],
        ["notes: 18 of 20 requests in total"],
    ]
    assert [found.get("budget_warnings") for found in shown] == [
        "\n\n".join(found) or None for found in lines
    ]
    assert "| 20 requests in total | 18 requests | 0 requests |" in shown[-1]["budgets"]
    observed = bench.instance.fetch_observations(bench.key(RESPONSES), limit=9).records
    assert len(observed) == 2


def test_thresholds_are_declared_and_those_over_all_datasets_are_their_own(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_BUDGETS", '[{"requests": 40, "per": "day"}]')
    bench = make_bench(numbered(10), limits={**TWENTY, "warn_at_percent": [10, 50]})
    bench.snapshot()
    (line,) = warnings(bench, bench.run())  # 25 % of the 40 is nothing to warn of
    assert line.startswith("notes: 10 of 20 requests in total are used (50 %)")


def test_without_budgets_nothing_is_said_of_them(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2))
    bench.run_missing()
    assert metadata(bench) == {}


def test_a_run_that_goes_on_is_watched_by_its_heartbeat(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking: set[str] = set()
    look = BudgetWatch.look

    def noted(watch: BudgetWatch) -> None:
        looking.add(threading.current_thread().name)
        look(watch)

    monkeypatch.setattr(BudgetWatch, "look", noted)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    simulator.settings = replace(simulator.settings, latency_ms=30)
    make_bench(numbered(20), limits={**TWENTY, "concurrency": 1}).run_missing()
    assert looking == {"heartbeat", threading.main_thread().name}


# the watch by itself


class Heard:
    """A watch over a real ledger, with what it logged and showed."""

    def __init__(self, ledger: Ledger) -> None:
        self.lines: list[str] = []
        self.shown: list[Any] = []
        percents = {scope_of("reviews"): (50,), EVERYTHING: (50,)}
        self.watch = BudgetWatch(
            ledger, percents, "run-1", self.lines.append, lambda found: self.shown.append(found)
        )


@pytest.fixture
def half_used(data_dir: Path) -> Any:
    """Return a ledger in which half of a budget of two requests is used."""
    path = data_dir / "ledger.sqlite"
    ledger = open_ledger(path)
    with ledger.database.write() as connection:
        declare(connection, EVERYTHING, [Limit(EVERYTHING, "run", "requests", 2)])
    ask_and_answer(ledger, "a")
    yield ledger
    close_ledger(path)


def test_a_watch_looks_now_and_then_only(half_used: Ledger) -> None:
    heard = Heard(half_used)
    for _ in range(BEATS_PER_LOOK - 1):
        heard.watch.beat()
    assert (heard.lines, heard.watch.metadata()) == ([], {})
    heard.watch.beat()
    assert len(heard.lines) == len(heard.shown) == 1


def test_of_two_watches_one_warns_and_both_show_the_budget(half_used: Ledger) -> None:
    first, second = Heard(half_used), Heard(half_used)
    for heard in (first, second):
        heard.watch.look()
    assert [len(heard.lines) for heard in (first, second)] == [1, 0]
    assert first.watch.metadata()["budgets"] == second.watch.metadata()["budgets"]


def test_a_ledger_that_cannot_be_read_is_said_once_and_stops_nobody(half_used: Ledger) -> None:
    heard = Heard(half_used)
    half_used.path.rename(half_used.path.with_suffix(".away"))
    heard.watch.look()
    heard.watch.look()
    (line,) = heard.lines
    assert str(half_used.path) in line
    half_used.path.with_suffix(".away").rename(half_used.path)
    heard.watch.look()
    assert heard.lines[1].startswith("all datasets: 1 of 2 requests per run")
