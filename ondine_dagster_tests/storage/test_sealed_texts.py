"""Texts in the lake under a key: what stands in the files, who reads it, and what is noticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.audit.verify import read_drift
from ondine_dagster.assets.shared import tables
from ondine_dagster.errors import OndineError
from ondine_dagster.settings import (
    ENCRYPTION_KEY,
    ENCRYPTION_SCOPE,
    OLD_ENCRYPTION_KEY,
    encryption_keys,
)
from ondine_dagster.storage.frames import load_as
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.rekeyed_files import rekey_files
from ondine_dagster.storage.views import connect

OLD, NEW = "the first key of all", "another key than that"
CANARY = "canary-4711-of-a-customer"
EVENTS = [
    {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "event": "no_use",
        "attempt": 1,
        "code": "bad",
        "message": f"it says {CANARY}",
        "latency_ms": 5,
    }
]
RESPONSES: list[dict[str, Any]] = [
    {
        "_row_key": f"r{number}",
        "_position": number,
        "outcome": "answered",
        "text": f"{CANARY} {number}" * 9,
        "error_message": f"{CANARY} is too long" if number else None,
        "events": EVENTS if number else None,
        "samples": [{"outcome": "answered", "text": CANARY, "events": EVENTS}, {"text": None}],
    }
    for number in range(2)
]
PROMPTS = [{"_row_key": f"r{number}", "messages": f"{CANARY} {number}"} for number in range(2)]
REJECTED = [{"_row_key": "r1", "_raw_text": CANARY, "_error_message": CANARY, "_events": EVENTS}]
FILES = {
    "responses": pa.Table.from_pylist(RESPONSES, tables.responses_schema(2)),
    "prompts": pa.Table.from_pylist(PROMPTS, tables.PROMPTS),
    "rejected_rows": pa.Table.from_pylist(REJECTED, tables.rejected_schema([])),
}
SetKeys = Callable[..., None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> SetKeys:
    """Set the key, the old one and the scope; None unsets."""

    def put(current: str | None, old: str | None = None, scope: str | None = None) -> None:
        names = (ENCRYPTION_KEY, OLD_ENCRYPTION_KEY, ENCRYPTION_SCOPE)
        for name, value in zip(names, (current, old, scope), strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def lake(data_dir: Any) -> Lake:
    return Lake(data_dir / "lake")


def write(lake: Lake, partition: str = "p", **notes: str) -> None:
    for asset, table in FILES.items():
        lake.write("notes", asset, partition, table, {"ondine.rows": "2", **notes})


def read(lake: Lake, partition: str = "p") -> dict[str, pa.Table]:
    return {asset: lake.read("notes", asset, partition) for asset in FILES}


def readable(lake: Lake) -> set[str]:
    """Return the assets whose files hold the canary for who has no key."""
    found = set()
    for path in lake.root.rglob("*.parquet"):
        table = pq.read_table(path)
        if CANARY in repr((table.to_pylist(), pq.read_schema(path).metadata)):
            found.add(path.parent.name)
    return found


@pytest.mark.behaviour("A-3")
def test_texts_are_sealed_columns_stay_and_all_of_ours_reads_them(
    lake: Lake, keys: SetKeys
) -> None:
    write(lake, "before")
    assert readable(lake) == set(FILES)
    shutil.rmtree(lake.root)
    keys(OLD)
    write(lake)
    assert readable(lake) == set()
    assert read(lake) == FILES
    for asset, table in FILES.items():
        assert lake.schema("notes", asset, "p").equals(table.schema)
        assert pa.Table.from_batches(lake.iter_batches("notes", asset, "p", 1)) == table
    some = ["outcome", "text"]
    assert lake.read("notes", "responses", "p", some) == FILES["responses"].select(some)
    (batch,) = lake.iter_batches("notes", "responses", "p", columns=some)
    assert pa.Table.from_batches([batch]) == FILES["responses"].select(some)
    file = lake.open("notes", "prompts", "p")
    chosen = pa.Table.from_batches(file.iter_batches(keys=["r1"]))
    file.close()
    assert chosen.to_pylist() == FILES["prompts"].to_pylist()[1:]
    sql = connect(lake).sql("SELECT outcome, text FROM notes.responses").fetchall()
    assert all(outcome == "answered" and text.startswith("sealed:") for outcome, text in sql)


def test_assets_of_ours_as_inputs_are_opened_in_every_form(lake: Lake, keys: SetKeys) -> None:
    keys(OLD)
    write(lake)
    write(lake, "q")
    files = [lake.path("notes", "prompts", one) for one in ("p", "q")]
    texts = FILES["prompts"]["messages"].to_pylist() * 2
    assert load_as(pa.Table, files)["messages"].to_pylist() == texts
    assert list(load_as(pd.DataFrame, files)["messages"]) == texts
    relation = load_as(duckdb.DuckDBPyRelation, files)
    assert [row[0] for row in relation.select("messages").fetchall()] == texts


def test_the_scope_says_whether_prompts_are_sealed(lake: Lake, keys: SetKeys) -> None:
    keys(OLD, scope="responses_only")
    write(lake)
    assert readable(lake) == {"prompts"}
    assert read(lake) == FILES
    keys(OLD, scope="all")
    assert rekey_files(lake.root).files == 1
    assert readable(lake) == set()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({ENCRYPTION_KEY: OLD, ENCRYPTION_SCOPE: "prompts"}, "can be all or responses_only"),
        ({ENCRYPTION_SCOPE: "all"}, "nothing would be encrypted"),
    ],
)
def test_another_scope_and_a_scope_without_a_key_are_refused(
    environment: dict[str, str], said: str
) -> None:
    with pytest.raises(OndineError, match=said):
        encryption_keys(environment)


def test_files_from_before_are_read_as_they_are(lake: Lake, keys: SetKeys) -> None:
    """Also texts that look sealed: only a file says whether its texts are."""
    keys(None)
    lookalike = pa.Table.from_pylist([{"_row_key": "r", "messages": "sealed:x"}], tables.PROMPTS)
    write(lake, "before")
    lake.write("notes", "prompts", "odd", lookalike)
    keys(OLD)
    write(lake)
    lake.write("notes", "prompts", "odd too", lookalike)
    assert read(lake, "before") == read(lake) == FILES
    for partition in ("odd", "odd too"):
        assert lake.read("notes", "prompts", partition) == lookalike


@pytest.mark.behaviour("A-14")
@pytest.mark.parametrize(("now", "said"), [(None, "is not set"), (NEW, "is another one")])
def test_a_wrong_key_is_refused_with_the_way_out(
    lake: Lake, keys: SetKeys, now: str | None, said: str
) -> None:
    keys(OLD)
    write(lake)
    keys(now)
    with pytest.raises(OndineError, match=rf"notes p: .*`responses`.*{said}.*--partition p"):
        lake.read("notes", "responses", "p")
    file = lake.open("notes", "prompts", "p")
    with pytest.raises(OndineError, match="makes prompts anew"):
        file.refuse_other_key()
    file.close()
    assert lake.read("notes", "responses", "p", ["outcome"]).num_rows == 2, "has no texts"
    sealed = lake.read("notes", "responses", "p", as_it_lies=True)
    assert sealed["text"].null_count == 0


def swapped(cells: list[Any]) -> list[Any]:
    return cells[::-1]


def opened(cells: list[Any]) -> list[Any]:
    return ["as I like it", *cells[1:]]


def cut(cells: list[Any]) -> list[Any]:
    return [cells[0][:20], *cells[1:]]


def of_a_sample(cells: list[Any]) -> list[Any]:
    first, second = cells
    return [[{**first[0], "text": second[0]["text"]}, *first[1:]], second]


@pytest.mark.behaviour("A-14")
@pytest.mark.parametrize(
    ("column", "change"),
    [("text", swapped), ("text", opened), ("text", cut), ("samples", of_a_sample)],
)
def test_a_cell_that_was_changed_is_named(
    lake: Lake, keys: SetKeys, column: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    keys(OLD)
    write(lake)
    table = lake.read("notes", "responses", "p", as_it_lies=True)
    index = table.column_names.index(column)
    cells = pa.array(change(table[column].to_pylist()), table.schema.field(index).type)
    changed = table.set_column(index, table.schema.field(index), cells)
    notes = lake.metadata("notes", "responses", "p")
    with lake.open_writer(
        "notes", "responses", "p", table.schema, notes, as_it_lies=True
    ) as writer:
        writer.append(changed)
        writer.commit()
    with pytest.raises(OndineError, match=rf"notes p: the text of row r0 in `responses.{column}"):
        lake.read("notes", "responses", "p")


def test_a_file_in_the_place_of_another_is_noticed(lake: Lake, keys: SetKeys) -> None:
    keys(OLD)
    write(lake)
    shutil.copy(lake.path("notes", "prompts", "p"), lake.path("notes", "prompts", "q"))
    with pytest.raises(OndineError, match="notes q: the text of row r0"):
        lake.read("notes", "prompts", "q")


def test_files_are_brought_over_to_another_key_and_back(lake: Lake, keys: SetKeys) -> None:
    keys(None)
    write(lake, ondine_note="x")
    path = lake.path("notes", "prompts", "p")
    os.utime(path, (1, 1))
    stages = [(OLD, None), (NEW, OLD), (None, NEW)]
    for current, old in stages:
        keys(current, old)
        assert rekey_files(lake.root).files == 3
        assert rekey_files(lake.root).files == 0
        keys(current)
        assert read(lake) == FILES
        assert readable(lake) == (set() if current else set(FILES))
        assert path.stat().st_mtime == 1, "as old as what was sent"
    assert lake.metadata("notes", "prompts", "p") == {"ondine.rows": "2", "ondine_note": "x"}


def test_files_under_a_lost_key_stay_as_they_are(lake: Lake, keys: SetKeys) -> None:
    keys(OLD)
    write(lake)
    keys(NEW)
    done = rekey_files(lake.root)
    assert (done.files, len(done.problems)) == (0, 3)
    keys(OLD)
    assert read(lake) == FILES


def verified(lake: Lake, *columns: str) -> pa.Table:
    """Return, written, that row r differs in these columns, between what the first of them say."""
    rows = [
        {
            "call": "c",
            "partition": "p",
            "_row_key": "r",
            "column": name,
            "verdict": "mismatch",
            "verified_at": "2026-01-01T00:00:00+00:00",
            "before": f"{CANARY} {name}",
            "now": f"{CANARY} {name}, once more",
            "why": None,
        }
        for name in columns
    ]
    schema = pa.schema([(name, pa.string()) for name in rows[0]])
    table = pa.Table.from_pylist(rows, schema)
    lake.write("notes", "verified", None, table)
    return table


@pytest.mark.behaviour("A-3")
def test_what_verify_compared_is_sealed_and_a_lost_key_leaves_the_verdicts(
    lake: Lake, keys: SetKeys
) -> None:
    keys(OLD, scope="responses_only")
    table = verified(lake, "mood", "tone")
    assert readable(lake) == set()
    assert lake.read("notes", "verified", None) == table
    assert lake.read("notes", "verified", None, ["now"]) == table.select(["now"])
    keys(NEW, OLD)
    assert rekey_files(lake.root).files == 1
    keys(NEW)
    assert lake.read("notes", "verified", None) == table
    keys(None)
    with pytest.raises(OndineError, match=r"notes: the texts in `verified`.*verify notes"):
        lake.read("notes", "verified", None)
    drift = read_drift(lake, "notes")
    assert drift is not None
    unreadable = "(encrypted under a key that is not given)"
    differs = ("p", f"r, mood: was {unreadable}, now {unreadable}")
    assert (drift.rows["mismatch"], drift.examples[0]) == (1, differs)
    keys(NEW)
    sealed = lake.read("notes", "verified", None, as_it_lies=True)
    swapped = sealed.set_column(3, "column", sealed["column"].take([1, 0]))
    notes = lake.metadata("notes", "verified", None)
    with lake.open_writer("notes", "verified", None, sealed.schema, notes, as_it_lies=True) as file:
        file.append(swapped.cast(sealed.schema))
        file.commit()
    with pytest.raises(OndineError, match=r"text of row c p r tone in `verified.before` is not"):
        lake.read("notes", "verified", None)
