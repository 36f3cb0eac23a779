"""`limits.max_rejected`: a partition with too many rejected rows is red, and says why."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.shared.partition_counts import too_many
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import REJECTED, RESULTS, MakeBench, numbered

BAD = "[[fault=refusal]] row {n}"


def rows(good: int, bad: int) -> list[Any]:
    return numbered(good) + numbered(bad, BAD, first=good)


@pytest.mark.parametrize(
    ("rejected", "of", "most", "red"),
    [
        (5, 100, 0.05, False),
        (6, 100, 0.05, True),
        (1, 3, 0.05, False),  # a share of a few rows says nothing
        (2, 3, 0.05, True),
        (1, 100, 0.0, True),
        (0, 100, 0.0, False),
        (0, 0, 0.0, False),
        (100, 100, 1.0, False),
    ],
)
def test_a_share_above_the_limit_is_too_many_and_a_single_row_is_not(
    rejected: int, of: int, most: float, red: bool
) -> None:
    assert too_many(rejected, of, most) is red


def test_the_partition_is_red_says_why_keeps_its_files_and_costs_nothing_again(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(rows(17, 3), limits={"max_rejected": 0.1})
    bench.snapshot()
    with pytest.raises(dg.Failure) as failed:
        bench.run()
    text = failed.value.description or ""
    assert "notes rows-00001: 3 of 10 rows are rejected (30 %)" in text
    assert "more than limits.max_rejected allows (10 %): 3 refused." in text
    assert "ondine-dagster retry notes" in text
    assert "costs nothing" not in text
    assert "rows-00000" not in text
    assert (len(bench.rows(RESULTS)), len(bench.rows(REJECTED))) == (17, 3)
    assert bench.states() == {"rows-00000": "done", "rows-00001": "failed"}
    assert bench.partitions_in_ui(RESULTS) == ({"rows-00000"}, {"rows-00001"})
    charged = simulator.bill.totals.charged

    bench.snapshot()
    assert not bench.run("rows-00001", raise_on_error=False).success
    assert simulator.bill.totals.charged == charged, "what is paid is not asked again"

    allowed = make_bench(limits={"max_rejected": 0.3})
    assert set(allowed.states().values()) == {"done"}, "today's limit counts"
    allowed.run("rows-00001")
    assert allowed.partitions_in_ui(RESULTS) == ({"rows-00000", "rows-00001"}, set())
    assert simulator.bill.totals.charged == charged


def test_answers_that_did_not_fit_can_be_read_in_another_way_for_nothing(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(numbered(3), output={"choice": ["never said"]}, limits={"max_rejected": 0})
    bench.snapshot()
    with pytest.raises(dg.Failure) as failed:
        bench.run()
    told = "What is changed in how answers are read costs nothing: ondine-dagster run notes"
    assert told in (failed.value.description or "")


def test_rows_that_wait_are_not_rejected_rows(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(10), limits={"max_rejected": 0, "budget_usd": 0})
    bench.snapshot()
    with pytest.raises(dg.Failure) as failed:
        bench.run()
    assert "max_rejected" not in (failed.value.description or "")
    (partition,) = bench.status().partitions
    assert (partition.state, partition.too_many_rejected) == ("failed", None)
