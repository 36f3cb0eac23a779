"""Each row carries a token, and the right answer is a function of it: no pack mixes rows up.

The simulator says which rows each request was about, so that what is left out or asked in vain
shows too. All sizes of packs, all faults of packs, all ways of asking for fields.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.engine.pack_sizes import PackPlan
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.registry import PackKind, build_packing, build_provider
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import FaultPlan, Simulator, answer
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster.spec import Llm, Output
from ondine_dagster_tests.engine.harness import Harness, Run, question

OUTPUT = Output.model_validate(
    {
        "fields": {
            "label": {"type": "string", "enum": ["good", "bad", "mixed", "none"]},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False},
            "note": {"type": "string"},
        }
    }
)
SCHEMA = wire_schema(OUTPUT.fields)
HEAD, TAIL = "Review: they say\n", ", and more."
WHOLE = StaticText(HEAD, TAIL)
COLUMNS = StaticText(HEAD, TAIL, ("said", "number"), ("\nReview number: ",))
ROWS = 120
# a fifth of all requests; those for single rows have the last two only
FAULTS = FaultPlan(
    seed=7,
    rates={
        **dict.fromkeys(PACK_CONTENTS, 0.02),
        "429 retry_after=0": 0.03,
        "500": 0.03,
    },
)

pytestmark = pytest.mark.usefixtures("short_waits", "short_cooldowns")


def token(number: int) -> str:
    return f"tök-{number} 日本"


def run(
    folder: Path,
    simulator: Simulator,
    rows: int | None,
    *,
    mode: str = "json_schema",
    kind: PackKind = "json",
    count: int = ROWS,
    static: StaticText = WHOLE,
    two: bool = False,
) -> Run:
    """Ask `count` rows in packs of `rows`, None for auto; then once more, which must be free.

    `two`: each row has a second column.
    """
    shape = simulator.settings.shape
    llm = Llm.model_validate(
        {
            "provider": "anthropic" if shape == "anthropic" else "openai_compatible",
            "name": "demo-model",
            "base_url": simulator.base_url,
            "structured": mode,
            "max_tokens": 200,
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
        }
    )
    number = "\nReview number: {0}" if two else ""
    asked = [
        question(
            f"{HEAD}[[token={token(n)}]]{number.format(n)}{TAIL}",
            f"row-{n}",
            system="Label reviews.",
        )
        for n in range(count)
    ]
    with closing(Harness(folder, simulator.base_url)) as harness:
        harness.provider = build_provider(llm, SCHEMA)
        if rows != 1:
            packing = build_packing(kind, SCHEMA, static)
            packs = build_provider(llm, packing.schema)
            harness.packs = PackPlan(packing, packs, rows, 20, None)
        done = harness.run(asked, concurrency=4)
        bill = simulator.bill.totals
        again = harness.run(asked, concurrency=4)
        assert again.texts == done.texts
        assert simulator.bill.totals == bill
        assert harness.problems() == []
        return done


def assert_each_row_has_its_own(done: Run, simulator: Simulator, count: int = ROWS) -> None:
    """Fail for a row that is mixed up, left out, doubled, or paid by somebody else."""
    assert [row.outcome for row in done.rows] == [Outcome.ANSWERED] * count
    read = AnswerReader(OUTPUT).read
    for number, row in enumerate(done.rows):
        asked = [{"role": "user", "content": f"[[token={token(number)}]]"}]
        assert read(row.text or "") == json.loads(answer(asked, SCHEMA)), number
    bill = simulator.bill.snapshot()
    assert set(bill.rows) == {token(number) for number in range(count)}
    assert max(bill.rows.values()) <= 3
    assert sum(row.cost for row in done.rows) == bill.totals.picodollars


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize("rows", [1, 7, 50, None], ids=["1", "7", "50", "auto"])
def test_a_fifth_of_the_requests_fail(
    tmp_path: Path, simulator: Simulator, rows: int | None, kind: PackKind
) -> None:
    simulator.fail(FAULTS)
    done = run(tmp_path, simulator, rows, kind=kind)
    assert_each_row_has_its_own(done, simulator)


def test_a_fifth_of_the_requests_for_tables_of_columns_fail(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.fail(FAULTS)
    done = run(tmp_path, simulator, 7, kind="csv", static=COLUMNS, two=True)
    assert_each_row_has_its_own(done, simulator)


def test_a_table_of_columns_is_billed_for_fewer_tokens(
    tmp_path: Path, simulator_factory: Any
) -> None:
    billed = []
    for static in (WHOLE, COLUMNS):
        simulator = simulator_factory()
        run(
            tmp_path / str(len(billed)), simulator, 8, kind="csv", count=16, static=static, two=True
        )
        billed.append(simulator.bill.totals)
    assert billed[0].requests == billed[1].requests == 2
    assert billed[1].prompt_tokens < billed[0].prompt_tokens


@pytest.mark.parametrize("fault", PACK_CONTENTS)
@pytest.mark.parametrize("mode", ["json_schema", "tools", "json_object", "prompt"])
def test_every_fault_of_packs_in_every_way_of_asking(
    tmp_path: Path, simulator: Simulator, mode: str, fault: str
) -> None:
    simulator.fail(FaultPlan(rates={fault: 1}))
    done = run(tmp_path, simulator, 7, mode=mode, count=10)
    assert_each_row_has_its_own(done, simulator, 10)


@pytest.mark.parametrize("mode", ["json_schema", "tools", "prompt"])
def test_a_fifth_of_the_requests_fail_at_anthropic(
    tmp_path: Path, simulator_factory: Any, mode: str
) -> None:
    faults = {name: share for name, share in FAULTS.rates.items() if name != "pack_prose"}
    simulator = simulator_factory(shape="anthropic", faults=FaultPlan(7, faults))
    done = run(tmp_path, simulator, 7, mode=mode)
    assert_each_row_has_its_own(done, simulator)
