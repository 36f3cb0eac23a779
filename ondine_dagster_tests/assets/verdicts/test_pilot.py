"""The pilot of a run, as its owner meets it: in the failure, the metadata and the bill."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import MakeBench, numbered

pytestmark = pytest.mark.behaviour("B-7")
FIELDS = {"fields": {"mark": {"type": "string", "accept": ["fine"]}}}
LONG = "[[token=unfit | word]] row {n} " + "long " * 200


def responses_metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = [
        one
        for one in result.get_asset_materialization_events()
        if one.asset_key.path[-1] == "responses"
    ][-1:]
    return {name: one.value for name, one in event.materialization.metadata.items()}


def test_a_bad_prompt_is_stopped_with_its_numbers_and_three_rows_and_goes_on_when_told(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = numbered(60, LONG)
    bench = make_bench(rows, partitions={"rows": 25}, output=FIELDS)
    bench.snapshot()
    with pytest.raises(dg.Failure) as caught:
        bench.run()
    paid = simulator.bill.totals.charged
    assert 16 <= paid <= 20
    text = caught.value.description or ""
    assert "The pilot failed, more than 50 % of the rows were rejected" in text
    assert "limits.pilot_rows: 0, and `ondine-dagster run notes`" in text
    assert text.count("not one of fine; asked") == 3
    assert len(text) < 3000
    table = str(caught.value.metadata["pilot_rows"].value)
    assert table.count("\n") == 4
    assert "unfit \\| word" in table
    assert set(bench.states().values()) == {"failed"}
    waiting = [one for one in bench.rows("rejected_rows") if one["_outcome"] == "not_attempted"]
    assert {one["_error_code"] for one in waiting} == {"pilot_failed"}
    assert max(len(one["_error_message"]) for one in waiting) < 200

    told = make_bench(rows, partitions={"rows": 25}, output=FIELDS, limits={"pilot_rows": 0})
    told.run()
    assert simulator.bill.totals.charged == 60
    assert simulator.bill.totals.repeats == 0


def test_a_good_prompt_passes_and_says_so_and_few_rows_have_no_pilot(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(numbered(50, "[[token=fine]] {n}"), output=FIELDS)
    bench.snapshot()
    shown = responses_metadata(bench.run())
    assert shown["pilot"].startswith("0 of the first ")
    assert "(expected: $" in shown["pilot"]

    few = make_bench(numbered(39, "[[token=unfit]] {n}"), name="few", output=FIELDS)
    few.snapshot()
    assert "pilot" not in responses_metadata(few.run())
    assert simulator.bill.totals.charged == 50 + 39


@pytest.mark.parametrize(
    ("checks", "stops"),
    [
        ({}, False),
        ({"max_rejected": 0.1}, True),
        ({"max_cost_ratio": 0.001}, True),
    ],
)
def test_the_thresholds_are_declared(
    make_bench: MakeBench, simulator: Simulator, checks: dict[str, float], stops: bool
) -> None:
    rows = [
        {"id": str(n), "text": f"[[token={'fine' if n % 4 else 'unfit'}]] {n}"} for n in range(80)
    ]
    bench = make_bench(rows, output=FIELDS, limits={"pilot_rows": 10}, checks={"pilot": checks})
    bench.snapshot()
    assert bench.run(raise_on_error=False).success is not stops
    assert (simulator.bill.totals.charged <= 10) is stops
