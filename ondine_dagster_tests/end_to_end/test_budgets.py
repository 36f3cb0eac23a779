"""Budgets as people meet them: in Dagster, on the command line, and over datasets that compete."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.end_to_end import commands
from ondine_dagster_tests.workbench import RESULTS, MakeBench, declaration, numbered


def description(result: dg.ExecuteInProcessResult) -> str:
    """Return what the failed step of a run says."""
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    return data.description or ""


# in Dagster


@pytest.mark.behaviour("A-15")
def test_a_budget_that_pays_for_no_row_fails_the_step_before_a_request_and_says_why(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(30), limits={"budget_usd": "0.0000001"})
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    assert not result.success
    assert simulator.bill.totals.requests == 0
    said = description(result)
    assert "notes: 3 partitions not complete" in said
    assert "30 rows waiting for another run" in said
    assert "limits.budget_usd of dataset notes ($0.0000001 in total) is too small" in said
    assert "it has $0.0000001 left, and the next request needs up to $0.000" in said
    assert "`ondine-dagster run notes`: only the rest is paid" in said
    assert set(bench.states().values()) == {"failed"}


def test_a_used_up_budget_keeps_what_was_answered_and_a_higher_one_pays_for_the_rest(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    used_up = {"budgets": [{"requests": 12, "per": "total"}], "concurrency": 1}
    bench = make_bench(numbered(30), limits=used_up)
    bench.snapshot()
    result = bench.run(raise_on_error=False)
    assert "limits.budgets of dataset notes (12 requests in total) is used up" in description(
        result
    )
    assert bench.states() == {"rows-00000": "done", "rows-00001": "failed", "rows-00002": "failed"}
    assert simulator.bill.totals.charged == 12
    bench = make_bench(limits={"budgets": [{"requests": 30, "per": "total"}]})
    assert bench.run_missing() == ["rows-00001", "rows-00002"]
    assert simulator.bill.totals.charged == 30
    assert [row["response"] for row in bench.rows(RESULTS)] == [f"t{n}" for n in range(30)]
    assert bench.contradictions() == []


# on the command line


@pytest.fixture
def person(
    tmp_path: Path, data_dir: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Person:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Person(folder, simulator)


def test_a_person_frees_what_unknown_requests_hold_and_the_next_run_uses_it(
    person: Person,
) -> None:
    five = {"budgets": [{"requests": 5, "per": "total"}], "max_unknown": 9}
    person.write(5, limits=five)
    person.simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    short = person.runs()
    assert (short.exit_code, person.paid) == (1, 5)
    assert "(5 requests in total) is used up: it has 0 requests left" in short.stderr
    assert "5 requests of it all is held by requests of unknown outcome" in short.stderr
    person.simulator.fail(FaultPlan())
    person.simulator.reset()
    assert person.types("ledger", "resolve", "--older-than", "0m", "--free").exit_code == 0
    assert person.runs().exit_code == 0
    assert person.paid == 5


# over all datasets


@pytest.fixture
def two(tmp_path: Path, simulator: Simulator) -> list[Path]:
    """Return two datasets with questions of their own, four of each in flight at most."""
    shared = {
        "llm": {**declaration(simulator)["llm"], "max_tokens": 8},
        "limits": {"concurrency": 4},
        "partitions": {"rows": 75},
    }
    return [
        commands.write_dataset(
            tmp_path / "datasets",
            declaration(
                simulator, name=name, source={"path": f"{name}.csv", "key": "id"}, **shared
            ),
            numbered(150, f"[[token={name}{{n}}]] a note that is as long as notes are"),
        )
        for name in ("ours", "theirs")
    ]


def test_two_datasets_that_run_at_once_share_the_budget_over_everything(
    two: list[Path], data_dir: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 400_000_000  # picodollars: some 120 of the 300 rows, or 12 at their worst
    monkeypatch.setenv("ONDINE_BUDGETS", '[{"usd": "0.0004", "per": "total"}]')
    simulator.hold()
    running = [commands.start(data_dir, "run", file) for file in two]
    both = simulator.bill.wait_for(lambda totals: totals.in_flight == 8, 60)
    simulator.release()
    ended = [one.wait() for one in running]
    assert both
    bill = simulator.bill.totals
    with reader_engine(data_dir / "ledger.sqlite").connect() as ledger:
        assert check(ledger) == []
        found = "SELECT dataset, max(reserved), sum(cost) FROM attempts GROUP BY dataset"
        datasets, worst, paid = zip(*ledger.exec_driver_sql(found), strict=True)
    assert set(datasets) == {"ours", "theirs"}
    assert sum(paid) == bill.picodollars
    assert budget - max(worst) < bill.picodollars <= budget
    for one in ended:
        assert one.code == 1
        assert "ONDINE_BUDGETS ($0.0004 in total over all datasets) is used up" in one.output
