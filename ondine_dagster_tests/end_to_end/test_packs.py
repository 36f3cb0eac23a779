"""Packs of rows with all else that prompts and answers have: each row gets its own answer."""

from __future__ import annotations

import json

import pytest

from ondine_dagster.engine import retry
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import FaultPlan, Simulator, answer
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster_tests.workbench import REJECTED, RESULTS, MakeBench

ROWS = 130
FIELDS = {
    "label": {"type": "string", "enum": ["good", "bad", "mixed"]},
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False, "column": "score"},
    "writer": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "angry": {"type": "boolean"}},
    },
}

EXAMPLE = {"label": "good", "stars": 4, "writer": {"name": "Ann", "angry": False}}


def token(number: int) -> str:
    return f'„{number}“, "日本" \\n'


def test_each_row_of_a_dataset_gets_its_own_answer(
    make_bench: MakeBench, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    rates = {**dict.fromkeys(PACK_CONTENTS, 0.02), "429 retry_after=0": 0.03, "500": 0.03}
    simulator.fail(FaultPlan(5, rates))
    rows = [{"id": f"r{n}", "text": f"[[token={token(n)}]]\r\nthey   say"} for n in range(ROWS)]
    bench = make_bench(
        rows,
        partitions={"rows": 60},
        prompt={
            "system": "You label reviews.",
            "examples": [{"input": "Review: fine.", "output": EXAMPLE}],
            "template": "Review: {{ text }}\nTake your time.",
        },
        output={"fields": FIELDS},
        batching={"rows_per_request": "auto"},
    )
    bench.snapshot()
    bench.run()

    schema = wire_schema(bench.dataset.output.fields)
    results = sorted(bench.rows(RESULTS), key=lambda row: row["_position"])
    assert bench.rows(REJECTED) == []
    assert [row["id"] for row in results] == [row["id"] for row in rows]
    for number, row in enumerate(results):
        asked = [{"role": "user", "content": f"[[token={token(number)}]]"}]
        wanted = json.loads(answer(asked, schema))
        found = {"label": row["label"], "stars": row["score"], "writer": row["writer"]}
        assert found == wanted, number

    bill = simulator.bill.snapshot()
    assert set(bill.rows) == {token(number) for number in range(ROWS)}
    assert max(bill.rows.values()) <= 3
    assert bill.totals.charged < ROWS / 2
    assert sum(attempt.cost for attempt in bench.attempts()) == bill.totals.picodollars
    assert bench.contradictions() == []
