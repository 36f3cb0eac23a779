"""Texts of old answers in the lake: of samples as well, and never over what a run has just made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ondine_dagster.assets import purged_files, tables
from ondine_dagster.assets.purged_files import PURGED_NOTE, purge_files
from ondine_dagster.ledger.identity import id_at
from ondine_dagster.storage.lake import Lake

CUTOFF = 1_000_000
NOTES = {"ondine.rows": "2"}


def responses(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=tables.responses_schema(2))


def row(key: str, *sent: int) -> dict[str, Any]:
    """Return a row whose samples were sent at these times, itself like the first."""
    samples = [{"text": f"{key} at {one}", "attempt_id": id_at(one)} for one in sent]
    return {"_row_key": key, "outcome": "answered", **samples[0], "samples": samples}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path)
    table = responses(row("old", 5, 2 * CUTOFF), row("new", 2 * CUTOFF, 5))
    made.write("notes", "responses", "p", table, NOTES)
    made.write("others", "responses", "p", table, NOTES)
    return made


def texts(lake: Lake, dataset: str = "notes") -> list[list[str | None]]:
    rows = lake.read(dataset, "responses", "p").to_pylist()
    return [[one["text"], *(sample["text"] for sample in one["samples"])] for one in rows]


def test_each_sample_goes_by_its_own_age(lake: Lake) -> None:
    assert purge_files(lake, CUTOFF, "notes") == 1
    assert texts(lake) == [
        [None, None, "old at 2000000"],
        ["new at 2000000", "new at 2000000", None],
    ]
    assert lake.metadata("notes", "responses", "p") == {**NOTES, PURGED_NOTE: "true"}
    assert texts(lake, "others")[0][0] == "old at 5", "another dataset"


def test_what_a_run_has_made_meanwhile_stays(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made = responses(row("newer", 3 * CUTOFF))
    open_writer = Lake.open_writer

    def opened_late(*args: Any, **options: Any) -> Any:
        writer = open_writer(*args, **options)
        monkeypatch.undo()
        lake.write("notes", "responses", "p", made, NOTES)
        return writer

    monkeypatch.setattr(Lake, "open_writer", opened_late)
    purge_files(lake, CUTOFF, "notes")
    assert texts(lake) == [["newer at 3000000", "newer at 3000000"]]
    assert PURGED_NOTE not in lake.metadata("notes", "responses", "p")


def test_a_file_of_an_older_version_and_no_file_are_left_alone(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "none")
    assert purge_files(lake, CUTOFF) == 0
    lake.write("notes", "responses", "p", responses(row("old", 5)).drop_columns("attempt_id"))
    assert purge_files(lake, CUTOFF) == 0
    assert purged_files.PURGED_NOTE not in lake.metadata("notes", "responses", "p")
