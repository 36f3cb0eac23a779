"""What Dagster shows of money before it is spent, and how near that came."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.rows import outlook
from ondine_dagster.assets.rows.outlook import Need, Questions, RowNeed
from ondine_dagster.ledger.estimates import Recorded, find
from ondine_dagster.simulator import Simulator
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

ASKING = (RESPONSES, RESULTS, REJECTED)


def metadata(bench: Bench, asset: str) -> list[dict[str, Any]]:
    """Return the metadata of the last event of each partition, in order."""
    last: dict[str | None, dg.EventLogRecord] = {}
    for record in bench.events(asset):
        last[record.partition_key] = record
    found = (last[key].asset_materialization for key in bench.partitions())
    return [{name: one.value for name, one in event.metadata.items()} for event in found if event]


def recorded(bench: Bench) -> Recorded:
    with bench.ledger.database.read() as connection:
        found = find(connection, "notes")
    assert found is not None
    return found


def test_prompts_show_what_asking_them_costs(make_bench: MakeBench) -> None:
    bench = make_bench([*numbered(14), {"id": "blank", "text": " "}])
    bench.run_missing()
    first, second = metadata(bench, PROMPTS)
    assert (first["requests_to_send"], second["requests_to_send"]) == (10, 4)
    assert (first["rows_already_paid"], second["rows_not_rendered"]) == (0, 1)
    assert 0 < first["expected_usd"] < first["at_most_usd"]
    bench.run(assets=[RAW, PROMPTS])
    first, second = metadata(bench, PROMPTS)
    assert [first["rows_already_paid"], second["rows_already_paid"]] == [10, 4]
    assert [first["expected_usd"], first["at_most_usd"]] == [0, 0]
    assert "asked_again" not in first


def test_tokens_of_prompts_are_those_that_the_model_counted_before(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(40))
    bench.snapshot()
    bench.run("rows-00000")
    used = simulator.bill.totals.prompt_tokens
    bench.run("rows-00000", assets=[RAW, PROMPTS])
    learnt = metadata_of(bench, "rows-00000")["estimated_prompt_tokens"]
    assert abs(learnt - used) / used < 0.1


def metadata_of(bench: Bench, partition: str) -> dict[str, Any]:
    event = next(one for one in reversed(bench.events(PROMPTS)) if one.partition_key == partition)
    assert event.asset_materialization is not None
    return {name: one.value for name, one in event.asset_materialization.metadata.items()}


def test_prompts_say_why_rows_are_asked_again(make_bench: MakeBench, simulator: Simulator) -> None:
    bench = make_bench(numbered(12))
    bench.run_missing()
    bench.declare(declaration(simulator, prompt={"template": "{{ text }}!"}))
    bench.run(assets=[RAW, PROMPTS])
    again = [one["asked_again"] for one in metadata(bench, PROMPTS)]
    assert again == ["10 rows: prompt changed", "2 rows: prompt changed"]
    bench.run(assets=[RAW, PROMPTS])  # the file of the answers' prompts is gone by now
    again = [one["asked_again"] for one in metadata(bench, PROMPTS)]
    assert again == ["10 rows: question changed", "2 rows: question changed"]


@pytest.mark.behaviour("B-6")
def test_the_step_that_spends_shows_what_was_expected_and_what_it_was(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(12))
    bench.run_missing()
    shown = {one["estimate"] for one in metadata(bench, RESPONSES)}
    (text,) = shown
    assert re.fullmatch(r"expected \$[\d.]+ \(at most \$[\d.]+\), was \$[\d.]+: \d+ % less", text)
    assert recorded(bench).estimate.requests == 12


def test_a_step_that_asks_nobody_expects_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(12))
    bench.run_missing()
    before = recorded(bench)
    bench.run()
    assert recorded(bench) == before
    assert all("estimate" not in one for one in metadata(bench, RESPONSES))


def test_prompts_of_an_earlier_run_are_looked_up_again(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(30))
    bench.snapshot()
    bench.run(assets=[RAW, PROMPTS])
    bench.run("rows-00001", assets=ASKING)
    assert recorded(bench).estimate.requests == 10
    bench.run(assets=ASKING)
    assert recorded(bench).estimate.requests == 20


def test_a_question_of_several_partitions_is_expected_once(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench([{"id": f"r{n}", "text": f"text {n % 3}"} for n in range(25)])
    bench.run_missing()
    assert recorded(bench).estimate.requests == simulator.bill.totals.requests == 3


def test_the_memory_for_questions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "_MOST_REMEMBERED", 2)
    questions = Questions()
    for key in (b"a", b"b", b"c", b"a", b"c"):
        questions.add(RowNeed(Need.NEW, key, (10, 20)))
    assert (questions.rows, questions.repeated) == (5, 1)  # the third was not remembered
