"""The checks, each green and red, as Dagster's pages show them: also of steps that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.simulator import FaultPlan, Simulator
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.assets.test_retry import with_fallback
from ondine_dagster_tests.assets.verdict_reader import seen, state
from ondine_dagster_tests.page import Page, open_page
from ondine_dagster_tests.workbench import PARTITIONED, Bench, MakeBench, declaration, numbered

MARK = {"fields": {"mark": {"type": "string"}}}
SCORE = {"fields": {"score": {"type": "integer", "required": False}}}
REFUSED = "[[fault=refusal]] {n}"


def marked(*marks: str) -> list[dict[str, str]]:
    return [{"id": f"r{n}", "text": f"[[token={mark}]] {n}"} for n, mark in enumerate(marks)]


@pytest.mark.behaviour("A-29", "B-7")
def test_a_fresh_project_where_everything_was_materialized_does_not_look_fine(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(30))
    bench.snapshot()
    fresh = seen(bench, "snapshot", "labelled")
    assert fresh.state == "warn"
    assert "3 partitions with 30 rows" in fresh.text
    assert "`ondine-dagster run notes`" in fresh.text
    assert fresh.metadata["partitions"].count("missing, 10 rows") == 3
    assert state(bench, "snapshot", "source_keys") == "ok"

    bench.run()
    assert state(bench, "snapshot", "labelled") == "ok"
    assert all(
        event.state == "ok"
        for event in (
            seen(bench, asset, check)
            for asset, check in (
                ("responses", "complete"),
                ("responses", "one_model"),
                ("responses", "cost_per_row"),
                ("responses", "budget_left"),
                ("responses", "unknown_money"),
                ("responses", "ledger"),
                ("results", "drift"),
                ("results", "rows_add_up"),
                ("results", "values_of_response"),
                ("rejected_rows", "rejected_share"),
                ("snapshot", "up_to_date"),
            )
        )
    )


@pytest.mark.behaviour("A-29", "E-10")
def test_a_range_with_a_red_partition_is_judged_and_later_runs_do_not_hide_it(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = numbered(20)
    rows[13] = {"id": "r13", "text": "[[fault=reset_after]]"}
    bench = make_bench(rows, limits={"max_unknown": 0})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    red = seen(bench, "responses", "complete")
    assert red.state == "error"
    assert "1 partition failed; 1 row waiting" in red.text
    assert "| rows-00001 | 1 row waiting" in red.metadata["partitions"]
    assert red.metadata["covers"] == "all 2 partitions of the snapshot"
    # what is made again from the recording says of the money what a run says
    bench.run(tags={"ondine/mode": "replay"}, raise_on_error=False)
    money = seen(bench, "responses", "unknown_money")
    assert money.state == "warn"
    assert "1 request ended without an answer" in money.text
    assert state(bench, "results", "rows_add_up") == "ok"

    bench.run("rows-00000")  # the other one, and it is green
    assert state(bench, "responses", "complete") == "error"
    assert state(bench, "snapshot", "labelled") == "warn"
    assert seen(bench, "results", "rows_add_up").metadata["waiting"] == 1


def test_parsing_again_judges_what_it_wrote_and_keeps_what_the_answers_cost(
    make_bench: MakeBench,
) -> None:
    rows = marked(*["fine"] * 9, "odd")
    bench = make_bench(rows, output=MARK)
    bench.snapshot()
    bench.run()
    cost = seen(bench, "responses", "cost_per_row").metadata["cost_per_row_usd"]
    strict = make_bench(rows, output={"fields": {"mark": {"type": "string", "accept": ["fine"]}}})
    assert strict.run(assets=["results"]).success
    broken = seen(strict, "results", "rows_add_up")
    assert broken.state == "error"
    assert "10 rows in, 9 in the files" in broken.metadata["partitions"]
    assert state(strict, "snapshot", "up_to_date") == "warn"
    assert strict.run(assets=["results", "rejected_rows"], raise_on_error=False).success is not None
    assert state(strict, "results", "rows_add_up") == "ok"
    assert state(strict, "snapshot", "up_to_date") == "ok"
    strict.run()
    assert seen(strict, "responses", "cost_per_row").state == "ok"
    assert cost > 0


@pytest.mark.behaviour("A-29")
def test_too_many_rejected_rows_are_an_error_that_names_the_partitions(
    make_bench: MakeBench,
) -> None:
    rows = [*numbered(10), *numbered(6, first=10), *numbered(4, REFUSED, first=16)]
    bench = make_bench(rows, limits={"max_rejected": 0.05})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    share = seen(bench, "rejected_rows", "rejected_share")
    assert share.state == "error"
    assert "4 of 20 rows are rejected (20 %)" in share.text
    assert "4 of 10 rows are rejected" in share.metadata["partitions"]


@pytest.mark.behaviour("B-7")
@pytest.mark.parametrize(
    ("checks", "values", "says"),
    [
        ({}, ["a", "b"] * 30, None),
        ({}, ["same"] * 60, "'same' in 100 % of the rows"),
        ({"max_same": 1}, ["same"] * 60, None),
        ({"allowed": ["a"]}, ["a"] * 50 + ["b"] * 10, "not expected: 'b' (10)"),
    ],
)
def test_the_values_of_a_field(
    make_bench: MakeBench, checks: dict[str, Any], values: list[str], says: str | None
) -> None:
    bench = make_bench(
        marked(*values),
        output=MARK,
        partitions={"rows": 30},
        checks={"fields": {"mark": checks}},
    )
    bench.run_missing()
    found = seen(bench, "results", "values_of_mark")
    assert found.state == ("ok" if says is None else "warn")
    assert says is None or says in found.text
    assert found.metadata["results"] == 60


def test_one_constant_partition_is_found_among_others(make_bench: MakeBench) -> None:
    rows = marked(*[f"m{n % 3}" for n in range(40)], *["stuck"] * 20)
    bench = make_bench(rows, output=MARK, partitions={"rows": 20})
    bench.snapshot()
    bench.run()
    found = seen(bench, "results", "values_of_mark")
    assert found.state == "warn"
    assert "not in 1 partition" in found.text
    assert "all 20 values are 'stuck'" in found.metadata["partitions"]


@pytest.mark.behaviour("A-29")
def test_a_budget_that_is_nearly_used_up_warns_and_a_stopped_run_is_an_error(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(
        numbered(20), partitions={"rows": 4}, limits={"budgets": [{"requests": 10, "per": "total"}]}
    )
    bench.snapshot()
    bench.run("rows-00000")
    assert seen(bench, "responses", "budget_left").text == "10 requests in total: 6 requests left."
    bench.run("rows-00001")
    tight = seen(bench, "responses", "budget_left")
    assert tight.state == "warn"
    assert "80 % are used, 2 requests left" in tight.text
    assert not bench.run("rows-00002", raise_on_error=False).success
    assert state(bench, "responses", "budget_left") == "error"
    stopped = seen(bench, "responses", "complete")
    assert stopped.state == "error"
    assert "limits.budgets" in stopped.metadata["partitions"].replace("\\", "")


@pytest.mark.behaviour("A-8", "A-29")
def test_ends_of_requests_that_are_not_in_the_ledger_fail_its_check(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(10))
    bench.snapshot()
    bench.run()
    assert state(bench, "responses", "ledger") == "ok"
    left = bench.data / "ledger.d" / f"{'ab' * 16}"
    left.write_bytes(b"a line of a process that has died")
    bench.run()
    found = seen(bench, "responses", "ledger")
    assert found.state == "error"
    assert "1 file with ends of requests that are not in the ledger" in found.text
    left.unlink()
    bench.run()
    assert state(bench, "responses", "ledger") == "ok"


@pytest.mark.behaviour("A-29")
def test_stale_partitions_are_said_with_what_to_do(make_bench: MakeBench) -> None:
    rows = numbered(10)
    bench = make_bench(rows)
    bench.run_missing()
    changed = make_bench(rows, prompt={"template": "Again: {{ text }}"})
    changed.snapshot()
    found = seen(changed, "snapshot", "up_to_date")
    assert found.state == "warn"
    assert "`ondine-dagster run notes --all`" in found.text
    assert state(changed, "snapshot", "labelled") == "ok"


@pytest.mark.behaviour("A-29")
def test_a_source_that_shrank_or_has_bad_keys_fails_its_check(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(20))
    bench.snapshot()
    assert state(bench, "snapshot", "source_not_shrunk") == "ok"
    shrunk = make_bench(numbered(17))
    for _ in range(2):  # looking twice does not make it fine
        shrunk.snapshot()
        assert state(shrunk, "snapshot", "source_not_shrunk") == "warn"
    allowed = make_bench(numbered(17), checks={"max_shrink": 0.5})
    allowed.snapshot()
    assert state(allowed, "snapshot", "source_not_shrunk") == "ok"

    (bench.folder / "notes.csv").unlink()
    with pytest.raises(dg.Failure, match=r"notes\.csv"):
        allowed.snapshot()
    gone = seen(allowed, "snapshot", "source_not_shrunk")
    assert gone.state == "error"
    assert "The snapshot before stays" in gone.text

    twice = make_bench([*numbered(17), *numbered(1)])
    with pytest.raises(dg.Failure, match="is not unique"):
        twice.snapshot()
    keys = seen(twice, "snapshot", "source_keys")
    assert keys.state == "error"
    assert "'r0' in rows 1, 18" in keys.text


@pytest.mark.behaviour("A-29")
def test_rows_that_fit_no_partition_fail_their_check(make_bench: MakeBench) -> None:
    values = {"values": {"column": "id", "listed": ["r0", "r1"]}}
    bench = make_bench(numbered(3), partitions=values)
    bench.snapshot()
    found = seen(bench, "snapshot", "rows_fit_partitions")
    assert found.state == "warn"
    assert "No partition fits 1 row" in found.text
    assert "r2" in found.metadata["partitions"]


def test_severity_and_blocking_are_declared(make_bench: MakeBench, simulator: Simulator) -> None:
    rows = marked(*["same"] * 60)
    checks: dict[str, Any] = {"severity": {"fields": "error", "labelled": "error"}}
    bench = make_bench(rows, output=MARK, partitions={"rows": 60}, checks=checks)
    bench.snapshot()
    assert state(bench, "snapshot", "labelled") == "error"
    assert bench.run(assets=(*PARTITIONED, "report")).success  # an error that is not blocking
    assert state(bench, "results", "values_of_mark") == "error"

    checks = {"blocking": ["fields"]}
    blocked = make_bench(rows, output=MARK, partitions={"rows": 60}, checks=checks)
    with pytest.raises(dg.Failure, match="values_of_mark failed, which is declared as blocking"):
        blocked.run()
    green, red = blocked.partitions_in_ui("results")
    assert (green | red) == {"rows-00000"}
    assert simulator.bill.totals.charged == 60


def test_a_provider_that_takes_another_model_is_found(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = numbered(20)
    rows[12]["text"] += " [[fault=other_model]]"
    bench = make_bench(rows)
    bench.snapshot()
    bench.run("rows-00000")
    assert state(bench, "responses", "one_model") == "ok"
    bench.run("rows-00001")
    changed = seen(bench, "responses", "one_model")
    assert changed.state == "warn"
    assert "19 demo-model, 1 demo-model-fallback." in changed.text
    assert "rows-00000" not in changed.metadata["partitions"]
    assert "| rows-00001 | 9 demo-model, 1 demo-model-fallback |" in changed.metadata["partitions"]
    shown = bench.events("responses")[-1].asset_materialization
    assert shown is not None
    assert shown.metadata["models_served"].value == "9 demo-model, 1 demo-model-fallback"
    # parsed again, the files of the answers stay as they are
    bench.run(assets=["results", "rejected_rows"])
    assert state(bench, "responses", "one_model") == "warn"
    several = make_bench(rows, llm=with_fallback(simulator))
    several.run()
    assert state(several, "responses", "one_model") == "ok"


def test_cost_per_row_beyond_the_plan_is_found(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(30), partitions={"rows": 30}, checks={"max_cost_ratio": 0.001})
    bench.snapshot()
    bench.run()
    dear = seen(bench, "responses", "cost_per_row")
    assert dear.state == "warn"
    assert dear.metadata["ratio"] > 0.001
    assert "times what was expected" in dear.metadata["partitions"]


def test_a_damaged_file_of_another_partition_is_a_warning_and_no_failure(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(20))
    bench.run_missing()
    lake: Lake = bench.lake
    lake.path("notes", "results", "rows-00001").write_bytes(b"no parquet")
    result = bench.run("rows-00000", assets=["responses", "results", "rejected_rows"])
    assert result.success
    logged = [one.user_message for one in bench.instance.all_logs(result.run_id)]
    assert any("the checks could not be evaluated" in one for one in logged)


def test_an_outage_in_the_middle_is_judged_too(make_bench: MakeBench, simulator: Simulator) -> None:
    bench = make_bench(numbered(10), limits={"max_attempts": 1})
    bench.snapshot()
    simulator.fail(FaultPlan(rates={"401": 1.0}))
    assert not bench.run(raise_on_error=False).success
    assert state(bench, "responses", "complete") == "error"


_ON_THE_PAGE = """query ($key: AssetKeyInput!) {
    assetNodeOrError(assetKey: $key) { ... on AssetNode {
        assetChecksOrError { ... on AssetChecks {
            checks { name executionForLatestMaterialization {
                status evaluation { severity success }
            } }
        } }
    } }
}"""


def on_the_page(page: Page, bench: Bench, asset: str) -> dict[str, str]:
    """Return what the page of an asset shows of its checks: ok, warn or error."""
    answer = page.ask(_ON_THE_PAGE, key={"path": list(bench.key(asset).path)})
    checks = answer["assetNodeOrError"]["assetChecksOrError"]["checks"]
    found = {}
    for one in checks:
        shown = one["executionForLatestMaterialization"]
        evaluation = shown and shown["evaluation"]
        assert evaluation, f"{one['name']}: {shown}"
        found[one["name"]] = "ok" if evaluation["success"] else evaluation["severity"].lower()
    return found


@pytest.mark.behaviour("A-29")
def test_the_page_shows_all_verdicts_after_a_backfill_in_which_a_partition_failed(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"partitions": {"rows": 5}, "limits": {"max_unknown": 0}}
    rows = numbered(15)
    rows[7]["text"] = "[[fault=reset_after]]"
    bench = make_bench(rows, **sections)
    with open_page(declaration(simulator, **sections), tmp_path) as page:
        bench.instance = page.instance
        bench.snapshot()
        assert on_the_page(page, bench, "snapshot")["labelled"] == "warn"
        page.backfill([bench.key(asset) for asset in PARTITIONED], bench.partitions())
        assert on_the_page(page, bench, "snapshot") == {
            "labelled": "warn",
            "rows_fit_partitions": "ok",
            "source_keys": "ok",
            "source_not_shrunk": "ok",
            "up_to_date": "ok",
        }
        assert on_the_page(page, bench, "responses") == {
            "budget_left": "ok",
            "complete": "error",
            "cost_per_row": "ok",
            "ledger": "ok",
            "one_model": "ok",
            "unknown_money": "warn",
        }
        assert on_the_page(page, bench, "results") == {
            "drift": "ok",
            "rows_add_up": "ok",
            "values_of_response": "ok",
        }
        assert on_the_page(page, bench, "rejected_rows") == {"rejected_share": "ok"}
