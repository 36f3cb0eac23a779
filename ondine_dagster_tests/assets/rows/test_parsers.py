"""How answers are read, in runs: nested columns, repairs that are counted, code of one's own."""

from __future__ import annotations

import csv
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.monitoring import slow_code as slow
from ondine_dagster.assets.monitoring.signals import Signals
from ondine_dagster.assets.monitoring.slow_code import slow_code
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.export import export
from ondine_dagster_tests import own_answers
from ondine_dagster_tests.spec.declarations import attributes
from ondine_dagster_tests.workbench import REJECTED, RESPONSES, RESULTS, MakeBench, numbered

OWN = "ondine_dagster_tests.own_answers"
NESTED: dict[str, Any] = {
    "who": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "required": False}},
    },
    "tags": {"type": "array", "items": {"type": "string"}, "column": "labels"},
}


def test_nested_answers_become_nested_columns_that_every_export_keeps(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench(numbered(3), output={"fields": NESTED})
    bench.run_missing()
    bench.report()
    table = bench.table(RESULTS)
    assert table.schema.field("who").type == pa.struct([("name", pa.string()), ("age", pa.int64())])
    assert table.schema.field("labels").type == pa.list_(pa.string())
    expected = [(row["who"], row["labels"]) for row in table.to_pylist()]
    assert [labels for _, labels in expected] == [["t0"], ["t1"], ["t2"]]
    assert [who["name"] for who, _ in expected] == ["t0", "t1", "t2"]

    paths = {
        kind: tmp_path / f"out.{kind}" for kind in ("parquet", "csv", "jsonl", "xlsx", "duckdb")
    }
    for path in paths.values():
        export(bench.lake, "notes", path)
    rows = pq.read_table(paths["parquet"]).to_pylist()
    assert [(row["who"], row["labels"]) for row in rows] == expected
    with open(paths["csv"], encoding="utf-8", newline="") as file:
        cells = [(json.loads(r["who"]), json.loads(r["labels"])) for r in csv.DictReader(file)]
    assert cells == expected
    lines = map(json.loads, paths["jsonl"].read_text("utf-8").splitlines())
    assert [(row["who"], row["labels"]) for row in lines] == expected
    sheet = openpyxl.load_workbook(paths["xlsx"]).active
    assert sheet is not None
    header, *rest = sheet.iter_rows(values_only=True)
    places = [header.index(name) for name in ("who", "labels")]
    assert [tuple(json.loads(str(row[at])) for at in places) for row in rest] == expected
    with duckdb.connect(str(paths["duckdb"])) as database:
        found = database.sql("SELECT who, labels FROM results ORDER BY id").fetchall()
    assert found == expected


def test_a_repair_is_seen_beside_the_row_and_counted_and_never_helps_a_cut_answer(
    make_bench: MakeBench,
) -> None:
    answer = '{"label": "a"}'
    rows = [
        {"id": "plain", "text": f"[[token={answer}]]"},
        {"id": "fenced", "text": f"[[token=```json\n{answer}\n```]]"},
        {"id": "cut", "text": f"[[token=So: {answer}. {'But more: ' * 9}]] [[fault=length]]"},
    ]
    output = {"format": "json", "types": {"label": "string"}, "repair": ["fences", "prose"]}
    bench = make_bench(rows, output=output)
    bench.run_missing()
    flags = {row["id"]: row["_flags"] for row in bench.rows(RESULTS)}
    assert flags == {"plain": None, "fenced": "repaired_fences"}
    (cut,) = bench.rows(REJECTED)
    assert cut["_error_code"] == "truncated"
    assert answer in cut["_raw_text"]
    texts = [row["text"] for row in bench.rows(RESPONSES)]
    assert sum(text.startswith("```") for text in texts) == 1  # the raw answer is kept
    told = bench.events(RESULTS)[-1].asset_materialization
    assert told is not None and told.metadata["rows_repaired_fences"].value == 1


def test_a_changed_function_reads_stored_answers_anew_at_no_cost(
    make_bench: MakeBench, tmp_path: Path, charged: Any
) -> None:
    code = tmp_path / "own_reading_1.py"
    code.write_text("def read(text):\n    return text.upper()\n")
    output = {"function": "own_reading_1:read", "column": "loud"}
    bench = make_bench(numbered(2), output=output)
    bench.run_missing()
    assert [row["loud"][:2] for row in bench.rows(RESULTS)] == ["T0", "T1"]
    before = bench.pipeline.local_version
    code.write_text("def read(text):\n    return {}[text]\n")
    assert Pipeline(bench.dataset, tmp_path / "x.yaml", tmp_path).local_version != before
    assert charged() == 2


def test_code_that_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    def refused(**output: Any) -> str:
        dataset = Dataset.model_validate(attributes(output=output))
        with pytest.raises(OndineError) as caught:
            Pipeline(dataset, tmp_path / "defs.yaml", tmp_path)
        return str(caught.value)

    (tmp_path / "own_answers_2.py").write_text(
        "def f(text): return text\nasync def late(text): pass\ndef two(text, row): pass\n"
    )
    (tmp_path / "json.py").write_text("def loads(text): return text")
    assert f"another one, {tmp_path / 'json.py'}" in refused(function="json:loads")
    assert "has no function g" in refused(function="own_answers_2:g")
    assert "own_answers_2:late is async" in refused(function="own_answers_2:late")
    assert "takes (text, row): missing a required" in refused(function="own_answers_2:two")
    assert "there is no module nowhere_at_all" in refused(function="nowhere_at_all:f")
    assert "has no class Gone" in refused(model=f"{OWN}:Gone")
    assert "is no Pydantic model" in refused(model=f"{OWN}:first_word")
    assert str(tmp_path / "defs.yaml") in refused(function=f"{OWN}:gone")


def test_a_model_is_asked_for_and_reads_the_answers(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2), output={"model": f"{OWN}:Rated"})
    bench.run_missing()
    assert [row["label"] for row in bench.rows(RESULTS)] == ["t0", "t1"]
    assert bench.table(RESULTS).schema.field("score").type == pa.int64()


def test_a_rejected_answer_is_asked_for_again_in_the_run_that_paid_for_it(
    make_bench: MakeBench, charged: Any
) -> None:
    output = {"function": f"{OWN}:only_good", "reask": 1}
    bench = make_bench(numbered(3), output=output)
    bench.run_missing()
    assert [row["response"] for row in bench.rows(RESULTS)] == ["good"] * 3
    assert {row["_flags"] for row in bench.rows(RESULTS)} == {"reasked"}
    told = bench.events(RESPONSES)[-1].asset_materialization
    assert told is not None and told.metadata["rows_reasked"].value == 3
    assert charged() == 6
    assert bench.contradictions() == []


def test_a_function_that_does_not_return_is_named_with_its_row(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    status: list[list[str]] = []
    heard = threading.Event()

    def warn(_: Signals, text: str) -> None:
        told.append(text)
        heard.set()

    def read(text: str) -> str:
        if text == "t1":
            assert heard.wait(60), "nobody was told of the row at which the function is"
            while not (seen := slow_code(bench.data, "notes")):
                time.sleep(0.001)
            status.append(seen)
        return text

    monkeypatch.setattr(slow, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(slow, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Signals, "warn", warn)
    monkeypatch.setattr(own_answers, "first_word", read)
    bench = make_bench(numbered(2), output={"function": f"{OWN}:first_word"})
    bench.run_missing()
    assert len(bench.rows(RESULTS)) == 2
    named = "output.function ondine_dagster_tests.own_answers:first_word has been reading the "
    named += "answer of row r1 (partition rows-00000) for"
    assert status and all(one[0].startswith(named) for one in status)
    assert [one.startswith(f"notes: {named}") for one in told] == [True]
    assert slow_code(bench.data, "notes") == []  # it has returned


def test_code_that_lets_nothing_else_run_is_told_by_python_itself(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hold(text: str) -> str:
        sum(range(10_000_000))  # one step of the interpreter, as a search of `re` is
        return text

    monkeypatch.setattr(slow, "HELD_SECONDS", 0.02)
    monkeypatch.setattr(own_answers, "first_word", hold)
    bench = make_bench(numbered(1), output={"function": f"{OWN}:first_word"})
    with slow.SlowCode(bench.pipeline, pytest.fail):
        bench.pipeline.reader.read("x")
    assert "in hold\n" in capfd.readouterr().err


def test_what_a_killed_run_has_told_of_its_code_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / slow.FOLDER / "notes.1.json"
    file.parent.mkdir()
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1"}
    file.write_text(json.dumps({"process": dead, "told": ["it hangs"]}))
    assert slow_code(tmp_path, "notes") == []
    assert not file.exists()
