"""The columns of results and rejected rows: declared, typed, the same whatever the answers were."""

from __future__ import annotations

import csv
import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.shared import tables
from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.export import export
from ondine_dagster.storage.views import connect
from ondine_dagster_tests.workbench import (
    PROMPTS,
    RAW,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    numbered,
)

FIELDS: dict[str, Any] = {
    "label": {"type": "string", "enum": ["a", "b", "c"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 10, "column": "stars"},
    "weight": {"type": "number"},
    "urgent": {"type": "boolean"},
    "note": {"type": "string", "required": False},
}
OUTPUT_TYPES = {
    "label": pa.string(),
    "stars": pa.int64(),
    "weight": pa.float64(),
    "urgent": pa.bool_(),
    "note": pa.string(),
}
OK, ERR = "[[token=t{n}]]", "[[fault=refusal]] {n}"
MIXES = {
    "ok, err": [OK, ERR],
    "err, ok": [ERR, OK],
    "err, err": [ERR, ERR],
    "ok": [OK],
    "not rendered": ["", ""],
}


def _rows(texts: list[str]) -> list[dict[str, str]]:
    return [{"id": f"r{n}", "text": text.replace("{n}", str(n))} for n, text in enumerate(texts)]


def _bench(make_bench: MakeBench, texts: list[str]) -> Bench:
    return make_bench(_rows(texts), output={"fields": FIELDS})


def _expected() -> dict[str, pa.Schema]:
    source = [pa.field("id", pa.string()), pa.field("text", pa.string())]
    output = [pa.field(name, kind) for name, kind in OUTPUT_TYPES.items()]
    return {
        RESPONSES: tables.RESPONSES,
        RESULTS: pa.schema([*source, *output, *tables.LINEAGE]),
        REJECTED: pa.schema([*source, *tables.ERRORS, *tables.LINEAGE]),
    }


def _schemas(bench: Bench) -> dict[str, pa.Schema]:
    name = bench.dataset.name
    return {
        asset: bench.lake.schema(name, asset, "rows-00000").remove_metadata()
        for asset in _expected()
    }


@pytest.mark.behaviour("E-2")
@pytest.mark.parametrize("texts", MIXES.values(), ids=MIXES)
def test_the_columns_are_the_declared_ones_whatever_was_answered(
    make_bench: MakeBench, texts: list[str]
) -> None:
    bench = _bench(make_bench, texts)
    bench.run_missing()
    assert _schemas(bench) == _expected()
    good = sum(text == OK for text in texts)
    assert bench.table(RESULTS).num_rows == good
    assert bench.table(REJECTED).num_rows == len(texts) - good


@pytest.mark.behaviour("E-2b")
def test_an_empty_partition_gives_empty_tables_with_all_columns_and_asks_nobody(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = _bench(make_bench, [OK])
    bench.snapshot()
    bench.run(assets=[RAW])
    place = (bench.dataset.name, RAW, "rows-00000")
    noted = bench.lake.metadata(*place)
    bench.lake.write(*place, bench.lake.read(*place).slice(0, 0), noted)
    bench.run(assets=[PROMPTS, RESPONSES, RESULTS, REJECTED])
    assert _schemas(bench) == _expected()
    assert bench.table(RESULTS).num_rows == bench.table(REJECTED).num_rows == 0
    assert simulator.bill.totals.requests == 0


@pytest.mark.behaviour("E-2b")
def test_a_source_without_rows_gives_no_partitions_and_a_report(make_bench: MakeBench) -> None:
    bench = _bench(make_bench, [OK])
    (bench.folder / "notes.csv").write_text("id,text\n")
    bench.snapshot()
    assert bench.partitions() == []
    (check,) = bench.report().get_asset_check_evaluations()
    assert check.passed


@pytest.mark.behaviour("E-2")
def test_the_columns_of_a_dataframe_have_the_declared_types(make_bench: MakeBench) -> None:
    bench = _bench(make_bench, [ERR, OK])
    bench.run_missing()
    frame = connect(bench.lake).sql("FROM notes.results").df()
    kinds = {name: frame[name].dtype.kind for name in ("stars", "weight", "urgent")}
    assert kinds == {"stars": "i", "weight": "f", "urgent": "b"}
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.behaviour("E-11")
def test_a_source_column_named_like_an_output_column_is_refused_before_a_run(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = [{"id": "1", "text": "a", "stars": "5"}]
    with pytest.raises(Exception, match="stars"):
        make_bench(rows, output={"fields": FIELDS})
    assert simulator.bill.totals.requests == 0


@pytest.mark.behaviour("E-11")
def test_a_collision_that_appears_later_stops_the_snapshot(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = _bench(make_bench, [OK])
    (bench.folder / "notes.csv").write_text("id,text,stars\n1,a,5\n")
    with pytest.raises(Exception, match="stars"):
        bench.snapshot()
    assert simulator.bill.totals.requests == 0


WEIRD = [
    'quotes " and, commas; and\ttabs',
    "two\nlines\r\nand a third",
    "Ünïcödé: 日本語 العربية हिन्दी 👩‍👩‍👧‍👦🏳️‍🌈",
    "  spaces around  ",
    "=1+1",
    "{{ 7 * 7 }} {% raw %}",
    '{"role":"system"}',
]


@pytest.mark.behaviour("A-20")
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_any_text_survives_prompt_answer_lake_and_export(
    make_bench: MakeBench, suffix: str
) -> None:
    bench = make_bench([{"id": str(n), "text": f"[[token={t}]]"} for n, t in enumerate(WEIRD)])
    bench.run_missing()
    to = bench.folder / f"out.{suffix}"
    export(bench.lake, "notes", to)
    assert [row["response"] for row in _read(to)] == WEIRD
    assert [row["text"] for row in _read(to)] == [f"[[token={text}]]" for text in WEIRD]
    shown = connect(bench.lake).sql("SELECT response FROM notes.results").fetchall()
    assert [text for (text,) in shown] == WEIRD


def _read(file: Any) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return list(pq.read_table(file).to_pylist())
    with open(file, newline="", encoding="utf-8") as stream:
        if file.suffix == ".csv":
            return list(csv.DictReader(stream))
        return [json.loads(line) for line in stream]


@pytest.mark.behaviour("A-20")
@pytest.mark.parametrize("fault", ["lone_surrogate", "escaped_surrogate"])
@pytest.mark.parametrize("fields", [{}, FIELDS], ids=["text", "fields"])
def test_broken_unicode_is_replaced_flagged_and_harms_no_other_row(
    make_bench: MakeBench, fault: str, fields: dict[str, Any]
) -> None:
    rows = numbered(3)
    rows[1]["text"] = f"[[token=cut 👍]] [[fault={fault}]]"
    bench = make_bench(rows, output={"fields": fields} if fields else {})
    bench.run_missing()
    text = "note" if fields else "response"
    first, broken, last = bench.rows(RESULTS)
    assert (first[text], last[text]) == ("t0", "t2")
    assert broken[text] == "cut 👍\ufffd"
    assert broken["_flags"] == "characters_replaced"
    assert first["_flags"] is None
    export(bench.lake, "notes", bench.folder / "out.csv")
