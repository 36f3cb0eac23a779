"""`enrich`: what a person gets back in a notebook, and what it costs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ondine_dagster import OndineError, enrich
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import declaration

PROMPT = "{{ text }}"
FIELDS: dict[str, Any] = {"mood": ["good", "bad"], "score": {"type": "integer", "minimum": 0}}


@pytest.fixture
def frame() -> pd.DataFrame:
    texts = ["[[token=a]] fine", "[[token=b]] [[fault=refusal]] awful", "[[token=c]] so so"]
    return pd.DataFrame({"text": texts, "n": [1, 2, 3]}, index=["x", "y", "z"])


def test_a_frame_comes_back_whole_and_a_second_call_pays_nothing(
    frame: pd.DataFrame, simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = declaration(simulator)["llm"]
    ask: dict[str, Any] = {"prompt": PROMPT, "llm": llm, "fields": FIELDS}
    first = enrich(frame, sample=1, **ask)
    assert (len(first), simulator.bill.totals.charged) == (1, 1)

    # a notebook runs in an event loop
    async def cell() -> pd.DataFrame:
        found: pd.DataFrame = enrich(frame, budget_usd=1, lineage=True, **ask)
        return found

    labelled = asyncio.run(cell())
    assert simulator.bill.totals.charged == 3
    pd.testing.assert_frame_equal(labelled[list(frame)], frame)
    assert labelled["mood"].isin(["good", "bad"]).tolist() == [True, False, True]
    assert labelled["score"].notna().tolist() == [True, False, True]
    assert labelled["_outcome"].tolist() == ["ok", "error", "ok"]
    assert "refused" in labelled.loc["y", "_error_message"]
    assert labelled["_cost_usd"].notna().all()
    assert "1 not; 2 requests" in capsys.readouterr().err


@pytest.mark.slow
def test_any_kind_of_table_comes_back_as_it_was(
    frame: pd.DataFrame, simulator: Simulator, tmp_path: Path
) -> None:
    ask: dict[str, Any] = {"prompt": PROMPT, "llm": declaration(simulator)["llm"], "fields": FIELDS}
    moods = enrich(frame, **ask)["mood"].tolist()
    reversed_ = enrich(pl.DataFrame(frame).reverse(), **ask)
    assert isinstance(reversed_, pl.DataFrame)
    assert reversed_["mood"].to_list() == [moods[2], None, moods[0]]
    arrow = enrich(pa.Table.from_pandas(frame, preserve_index=False), **ask)
    assert isinstance(arrow, pa.Table)
    assert arrow["mood"].to_pylist() == [moods[0], None, moods[2]]
    frame.to_csv(tmp_path / "x.csv", index=False)
    from_file = enrich(tmp_path / "x.csv", **ask)
    assert from_file["text"].tolist() == frame["text"].tolist()
    assert from_file["n"].tolist() == ["1", "2", "3"]
    frame.iloc[:1].to_csv(tmp_path / "x.csv", index=False)
    frame.iloc[1:].to_csv(tmp_path / "y.csv", index=False)
    from_files = enrich(str(tmp_path / "*.csv"), **ask)
    assert from_files["text"].tolist() == frame["text"].tolist()
    with fsspec.open("memory://enriched/x.csv", "w") as file:
        frame.to_csv(file, index=False)
    from_store = enrich("memory://enriched/x.csv", **ask)
    assert from_store["text"].tolist() == frame["text"].tolist()
    assert simulator.bill.totals.charged == 3


@pytest.mark.slow
def test_a_budget_that_is_used_up_leaves_rows_out_and_says_so(
    frame: pd.DataFrame, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = {**declaration(simulator)["llm"], "max_tokens": 16}
    ask: dict[str, Any] = {"prompt": PROMPT, "llm": llm, "name": "moods"}
    labelled = enrich(
        frame, limits={"budgets": [{"requests": 1, "per": "run"}], "concurrency": 1}, **ask
    )
    assert labelled["_outcome"].tolist().count("not_attempted") == 2
    assert "budget" in capsys.readouterr().err
    with pytest.raises(OndineError, match=r"moods: no row was answered\.\n.*budget"):
        enrich(frame.tail(1), budget_usd="0.00000001", **ask)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_what_is_paid(frame: pd.DataFrame, simulator: Simulator) -> None:
    ask: dict[str, Any] = {"prompt": PROMPT, "llm": declaration(simulator)["llm"]}
    simulator.hold()

    def press() -> None:
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 2)
        os.kill(os.getpid(), signal.SIGINT)
        simulator.release()

    person = threading.Thread(target=press)
    person.start()
    with pytest.raises(KeyboardInterrupt):
        enrich(frame, limits={"concurrency": 2}, **ask)
    person.join()
    assert simulator.bill.totals.charged == 2
    labelled = enrich(frame, **ask)
    assert labelled["response"].dropna().to_dict() == {"x": "a", "z": "c"}
    assert simulator.bill.totals.charged == 3


def test_calls_at_once_keep_their_rows_apart(simulator: Simulator) -> None:
    llm = declaration(simulator)["llm"]
    frames = [pd.DataFrame({"text": [f"[[token={name}{n}]]" for n in range(3)]}) for name in "ab"]
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda one: enrich(one, prompt=PROMPT, llm=llm), frames))
    assert [one["response"].tolist() for one in found] == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


def test_a_call_waits_for_another_process_that_asks_the_same(
    frame: pd.DataFrame, simulator: Simulator, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir / "notebook"
    folder.mkdir(parents=True)
    ask: dict[str, Any] = {"prompt": PROMPT, "llm": declaration(simulator)["llm"], "name": "moods"}
    with ThreadPoolExecutor() as threads, open(folder / "moods.lock", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        call = threads.submit(enrich, frame, **ask)
        while "moods: waiting for another process" not in capsys.readouterr().err:
            assert not call.done()
        assert not (folder / "moods.parquet").exists()
        fcntl.flock(other, fcntl.LOCK_UN)
        assert call.result()["response"].dropna().tolist() == ["a", "c"]


@pytest.mark.parametrize(
    "kind",
    [
        pl.DataFrame,
        pytest.param(pd.DataFrame, marks=pytest.mark.slow),
        pytest.param(pa.table, marks=pytest.mark.slow),
    ],
)
def test_what_came_back_may_be_asked_about_again(
    kind: Callable[[Any], Any], simulator: Simulator
) -> None:
    llm = declaration(simulator)["llm"]
    table = kind({"text": ["[[token=a]]", "[[fault=refusal]]"]})
    first = enrich(table, prompt=PROMPT, llm=llm, lineage=True)
    second = enrich(first, prompt="{{ response }} {{ text }}", llm=llm, fields=FIELDS)
    names = list(second.column_names if kind is pa.table else second.columns)
    assert names == ["text", "response", "mood", "score", "_outcome", "_error_message"]


def test_fields_have_the_type_of_their_values(frame: pd.DataFrame, simulator: Simulator) -> None:
    fields = {"late": [True, False], "stars": [1, 2.5], "size": [1, 2]}
    labelled = enrich(frame, prompt=PROMPT, llm=declaration(simulator)["llm"], fields=fields)
    assert labelled["late"].dropna().isin([True, False]).all()
    assert labelled["stars"].dropna().isin([1, 2.5]).all()
    assert labelled["size"].dtype == "Int64"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [1, 2]}, "list is no table"),
        ({"data": pd.DataFrame({"text": [1, "a"]})}, "values of one type"),
        ({"sample": 0}, "it must be at least 1"),
        ({"sample": 2.5}, "it must be at least 1"),
        ({"name": "../moods"}, "name is '../moods'; it must start with a small letter"),
        ({"fields": ["mood"]}, "fields is .*; it must be a mapping"),
        ({"fields": {"mood": []}}, "fields: mood is"),
        ({"fields": {"mood": "text"}}, "must be one of 'string'"),
        ({"prompt": "{{ txt }}"}, "txt"),
        ({"llm": "openai/"}, "llm"),
        ({"budget_usd": "a lot"}, "an amount in USD"),
        ({"key": "nr"}, "nr"),
        ({"data": "nowhere/*.csv"}, r"nowhere/\*\.csv"),
        ({"data": "table.docx"}, "table.docx"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_costs_nothing(
    frame: pd.DataFrame, simulator: Simulator, changes: dict[str, Any], message: str
) -> None:
    call = {"data": frame, "prompt": PROMPT, "llm": declaration(simulator)["llm"], **changes}
    with pytest.raises(OndineError, match=message):
        enrich(call.pop("data"), **call)
    assert simulator.bill.totals.requests == 0
