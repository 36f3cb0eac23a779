"""What Dagster shows of a partition: numbers, first rows, columns and where they come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.monitoring import heartbeat
from ondine_dagster.assets.monitoring.live import LiveStep, Pace
from ondine_dagster.assets.shared import markdown
from ondine_dagster.assets.shared.partition_counts import PartitionCounts
from ondine_dagster.engine.progress import Progress
from ondine_dagster.simulator import Simulator
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster_tests.workbench import (
    PROMPTS,
    RAW,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
)

IMAGE = "![seen](http://spy.example/x.png) <script>alert(1)</script> a|b\nc `d`"


def metadata(bench: Bench, asset: str) -> dict[str, Any]:
    """Return the metadata of the last event of an asset."""
    event = bench.events(asset)[-1].asset_materialization
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


@pytest.mark.behaviour("A-28")
@pytest.mark.behaviour("B-7")
def test_each_number_is_what_the_server_saw(make_bench: MakeBench, simulator: Simulator) -> None:
    rows = numbered(10)
    rows[3]["text"] = "[[token=t3]] [[fault=500 times=1]] row 3"
    rows[4]["text"] = "[[token=t4]] [[fault=refusal]] row 4"
    simulator.settings = replace(simulator.settings, tokens=TokenRules(cached_share=0.5))
    bench = make_bench(rows, limits={"requests_per_minute": 6000})
    bench.snapshot()
    bench.run()
    totals, shown = simulator.bill.totals, metadata(bench, RESPONSES)
    assert shown["requests"] == totals.requests == 11
    assert shown["retries"] == totals.refused == 1
    assert (shown["rows_answered"], shown["rows_error"]) == (9, 1)
    assert (shown["rows_not_attempted"], shown["rows_held"]) == (0, 0)
    assert (shown["rows_reused"], shown["reused_share"]) == (0, 0)
    assert shown["prompt_tokens"] == totals.prompt_tokens
    assert shown["completion_tokens"] == totals.completion_tokens
    assert 0 < shown["cached_tokens"] <= totals.prompt_tokens / 2
    assert shown["cost_usd"] == pytest.approx(totals.picodollars / 1e12)
    assert shown["cost_per_row_usd"] == pytest.approx(totals.picodollars / 1e13)
    assert shown["unknown_usd"] == 0
    assert shown["rows_cost_computed"] == 10
    assert 0 < shown["latency_p50_ms"] <= shown["latency_p95_ms"]
    assert shown["throttled_seconds"] > 0  # eleven requests at a hundred a second
    assert shown["paused_seconds"] == 0
    assert shown["rows_per_second"] > 0
    assert metadata(bench, REJECTED)["rejected_share"] == 0.1

    bench.run()
    shown = metadata(bench, RESPONSES)
    assert (shown["rows_reused"], shown["reused_share"], shown["requests"]) == (10, 1, 0)
    assert (shown["cost_usd"], shown["rows_cost_reused"]) == (0, 10)
    assert not {"latency_p50_ms", "cost_per_row_usd"} & set(shown)


@pytest.mark.behaviour("A-28")
def test_seconds_of_waiting_add_up_over_the_partitions_of_a_run() -> None:
    progress = Progress()
    step = LiveStep("notes", 2, 20, progress, lambda: None)
    counts = [PartitionCounts(), PartitionCounts()]
    progress.paused_seconds, progress.throttled_seconds = 3.0, 1.0
    step.finish(counts[0])
    progress.paused_seconds = 7.0
    step.finish(counts[1])
    assert [one.paused_seconds for one in counts] == [3.0, 4.0]
    assert [one.throttled_seconds for one in counts] == [1.0, 0.0]
    assert step.finished == 2


def test_the_first_rows_are_shown_and_nothing_in_them_is_markup(make_bench: MakeBench) -> None:
    rows = numbered(12)
    rows[1]["text"] = IMAGE
    rows[2]["text"] = f"[[fault=content_policy]] {IMAGE}"
    rows[7]["text"] = "[[fault=refusal]] " + 500 * "long "
    bench = make_bench(rows, partitions={"rows": 20}, output={"column": "answer"})
    bench.snapshot()
    bench.run()
    lines = metadata(bench, RESULTS)["preview"].splitlines()
    assert lines[0] == "| id | answer | text |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| r0", "| r1", "| r3", "| r4", "| r5"]
    assert r"\!\[seen\]\(http\:" in lines[3]
    rejected = metadata(bench, REJECTED)["preview"].splitlines()
    assert [line.split(" | ")[0] for line in rejected[2:]] == ["| r2", "| r7"]
    assert r"\_error\_code" in rejected[0]
    assert r"\<script\>" in rejected[2]
    for line in (*lines, *rejected):
        assert len(line) < 1000
        assert line.count(" | ") == (2 if line in lines else 4)


def test_cells_of_every_kind_fit_into_a_line_of_a_table() -> None:
    found = markdown.table(["n", "x"], [(12345, None), (True, "a\r\n\n$b$|")], right={0})
    assert found.splitlines() == [
        "| n | x |",
        "| ---: | --- |",
        "| 12,345 | *NULL* |",
        r"| True | a ⏎  ⏎ \$b\$\| |",
    ]


@pytest.mark.behaviour("A-24")
@pytest.mark.behaviour("P-18")
def test_how_the_fields_were_asked_for_is_recorded(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    llm = {**declaration(simulator)["llm"], "structured": "prompt"}
    bench = make_bench(numbered(2), llm=llm, output={"fields": {"mood": {"type": "string"}}})
    bench.snapshot()
    bench.run()
    assert metadata(bench, RESPONSES)["structured_output"] == "prompt"
    assert [row["mood"] for row in bench.rows(RESULTS)] == ["t0", "t1"]


def test_columns_come_from_where_they_are_made(make_bench: MakeBench) -> None:
    rows = [{**row, "unused": "x"} for row in numbered(3)]
    fields = {"mood": {"type": "string", "column": "feeling"}}
    bench = make_bench(rows, output={"fields": fields})
    bench.snapshot()
    bench.run()

    def origins(asset: str) -> dict[str, list[str]]:
        made = metadata(bench, asset)["dagster/column_lineage"].deps_by_column
        return {
            column: [f"{dep.asset_key.path[-1]}.{dep.column_name}" for dep in deps]
            for column, deps in made.items()
        }

    assert origins(RAW) == {name: [f"snapshot.{name}"] for name in ("id", "text", "unused")}
    assert origins(PROMPTS) == {"messages": ["raw_rows.text"]}
    assert origins(RESPONSES) == {"text": ["prompts.messages"]}
    assert origins(RESULTS) == {
        "id": ["raw_rows.id"],
        "text": ["raw_rows.text"],
        "unused": ["raw_rows.unused"],
        "feeling": ["raw_rows.text", "responses.text"],
    }
    assert origins(REJECTED)["_raw_text"] == ["raw_rows.text", "responses.text"]
    for asset in (RAW, PROMPTS, RESPONSES, RESULTS, REJECTED):
        columns = {one.name for one in metadata(bench, asset)["dagster/column_schema"].columns}
        assert set(origins(asset)) <= columns, asset


# progress


def lines_of(bench: Bench, result: dg.ExecuteInProcessResult) -> list[str]:
    """Return what the stages logged."""
    found = bench.instance.all_logs(result.run_id)
    return [one.user_message for one in found if one.user_message.startswith("notes")]


@pytest.mark.behaviour("A-19")
def test_lines_of_progress_come_with_time_not_with_rows(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 1000.0)
    bench = make_bench(numbered(600), partitions={"rows": 300})
    bench.snapshot()
    quiet = lines_of(bench, bench.run("rows-00000"))
    assert len(quiet) == 1  # the line of the partition
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    simulator.settings = replace(simulator.settings, latency_ms=20)
    beating = [one for one in lines_of(bench, bench.run("rows-00001")) if "of 300 rows" in one]
    assert 0 < len(beating) < 100
    assert "0 of 1 partitions" in beating[0]
    for part in ("rows/s", "requests in flight", " paid"):
        assert part in beating[-1], part
    assert any("left" in one and "at most $" in one for one in beating)


def test_the_rate_follows_the_last_half_minute() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for _ in range(100):
        now += 1
        assert pace.rate(round(now) * 10) == 10
    for _ in range(40):
        now += 1
        rate = pace.rate(1000)
    assert rate == 0
