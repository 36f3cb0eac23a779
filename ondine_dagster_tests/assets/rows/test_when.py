"""Rows that `when` skips: nobody is asked, and they are in `results` with nothing in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.assets.export import told
from ondine_dagster.assets.planning.plan import DatasetPlan, plan_rows
from ondine_dagster.assets.reporting.report_data import collect
from ondine_dagster.assets.rows.attachments import AttachmentReader
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.storage.export import export
from ondine_dagster_tests.workbench import (
    PROMPTS,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
)

FIELDS = {"label": {"type": "string", "required": True}, "score": {"type": "integer"}}
TYPES = {"path": "notes.csv", "key": "id", "types": {"n": "integer"}}


def rows(count: int) -> list[Any]:
    """Return rows that also tell their number `n`."""
    return [{**row, "n": n} for n, row in enumerate(numbered(count))]


def planned(bench: Bench) -> DatasetPlan:
    snapshot = bench.pipeline.snapshot(bench.lake)
    keys = bench.partitions()
    with reading(bench.data / "ledger.sqlite") as ledger:
        return plan_rows(bench.pipeline, bench.lake, (bench.lake, snapshot), keys, keys, ledger)


@pytest.mark.behaviour("E-10")
def test_a_skipped_row_is_asked_nobody_and_counted_everywhere(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(
        rows(12), source=TYPES, when="n < 8 and n % 4 != 3", output={"fields": FIELDS}
    )
    bench.snapshot()
    plan = planned(bench)
    assert plan.rows == {Need.NEW: 6, Need.SKIPPED: 6}
    assert plan.run.requests == 6
    bench.run()
    assert charged() == 6

    responses = {row["_row_key"]: row for row in bench.rows(RESPONSES)}
    assert len(responses) == len(bench.rows(PROMPTS)) == 12
    skipped = {key for key, row in responses.items() if row["outcome"] == "skipped"}
    assert skipped == {"r3", "r7", "r8", "r9", "r10", "r11"}
    results = bench.rows(RESULTS)
    assert [row["id"] for row in results] == [f"r{n}" for n in range(12)]
    for row in results:
        left_out = row["id"] in skipped
        assert row["_outcome"] == ("skipped" if left_out else "ok")
        assert (row["label"] is None) == (row["_answer_key"] is None) == left_out
        assert row["_cost_usd"] == 0 if left_out else row["_cost_usd"] > 0
    assert not bench.rows(REJECTED)

    status = bench.status()
    assert (status.rows, status.results, status.skipped, status.rejected) == (12, 6, 6, 0)
    with bench.ledger.database.read() as connection:
        report = collect(bench.pipeline, bench.lake, status, connection)
    assert [(one.name, one.rows) for one in report.fields] == [("label", 6), ("score", 6)]
    (evaluation,) = bench.report().get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.metadata["skipped"].value == 6
    events = [one.event_log_entry.asset_materialization for one in bench.events(RESPONSES)]
    counted = [one.metadata for one in events if one is not None]
    outcomes = {(one["rows_answered"].value, one["rows_skipped"].value) for one in counted}
    assert outcomes == {(6, 4), (0, 2)}
    exported = export(bench.lake, "notes", bench.folder / "out.csv")
    assert (exported.rows, exported.skipped) == (12, 6)
    assert told(exported).endswith("out.csv, 6 of them skipped by `when`")


def test_a_change_of_when_pays_only_for_rows_that_were_never_asked(
    make_bench: MakeBench, charged: Callable[[], int], simulator: Any
) -> None:
    """Narrowed, the file must give way although it has fewer answers; widened again, it is free."""
    bench = make_bench(rows(10), source=TYPES, when="n < 6")
    bench.run_missing()
    assert charged() == 6
    keys = {row["_row_key"]: row["answer_key"] for row in bench.rows(PROMPTS)}

    def again(when: str) -> list[str]:
        bench.declare(declaration(simulator, source=TYPES, when=when))
        assert set(bench.states().values()) == {"stale"}
        bench.run()
        assert set(bench.states().values()) == {"done"}
        return [row["id"] for row in bench.rows(RESULTS) if row["_outcome"] == "ok"]

    assert again("n < 3") == ["r0", "r1", "r2"]
    assert charged() == 0
    assert again("n < 8") == [f"r{n}" for n in range(8)]
    assert charged() == 2
    assert planned(bench).rows == {Need.PAID: 8, Need.SKIPPED: 2}
    now = {row["_row_key"]: row["answer_key"] for row in bench.rows(PROMPTS)}
    assert all(now[key] == value for key, value in keys.items() if value)


def test_a_condition_that_cannot_be_told_rejects_the_row_and_costs_nothing(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    """Skipped rows are no part of the share that may be rejected."""
    bench = make_bench(
        [{**row, "n": n} for row, n in zip(numbered(8), "1xx99999", strict=True)],
        source={**TYPES, "types": {}},
        when="n if n == 'x' else n | int < 9",
        limits={"max_rejected": 0.5},
    )
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    assert charged() == 1
    assert [row["_error_code"] for row in bench.rows(REJECTED)] == ["condition_failed"] * 2
    (status,) = bench.status().partitions
    assert (status.results, status.skipped, status.rejected) == (1, 5, 2)
    assert "2 of 3 rows are rejected" in str(status.too_many_rejected)


def test_an_unknown_column_is_named_before_anything_runs(make_bench: MakeBench) -> None:
    with pytest.raises(OndineError, match="`when` names sters, which the source does not have"):
        make_bench(rows(1), source=TYPES, when="sters < 3")


def test_the_files_of_a_skipped_row_are_not_looked_at(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    read = AttachmentReader.read

    def noted(self: AttachmentReader, rows: Any) -> Iterator[Any]:
        looked_at.extend(row["id"] for row in rows)
        return iter(read(self, rows))

    monkeypatch.setattr(AttachmentReader, "read", noted)
    bench = make_bench(
        [{**row, "photo": str(Path("gone.png"))} for row in rows(4)],
        source=TYPES,
        prompt={"template": "{{ id }}", "images": [{"column": "photo"}]},
        when="n == 1",
        llm={**declaration_llm(make_bench), "image_tokens": 100},
    )
    bench.snapshot()
    bench.run(assets=["raw_rows", "prompts"])
    assert looked_at == ["r1"]


def declaration_llm(make_bench: MakeBench) -> dict[str, Any]:
    """Return the section `llm` of a bench."""
    return make_bench().dataset.llm.model_dump(mode="json", exclude_defaults=True)
