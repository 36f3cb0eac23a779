"""Texts of old answers in the lake: of samples as well, and never over what a run has just made."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ondine_dagster.assets.audit.verify import read_drift
from ondine_dagster.assets.rows import purged_files
from ondine_dagster.assets.rows.purged_files import PURGED_NOTE, purge_files
from ondine_dagster.assets.rows.unused_attachments import Unused, remove_unused
from ondine_dagster.assets.shared import tables
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.identity import canonical_json, id_at
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake

CUTOFF = 1_000_000
NAMED, COMPARED = ("call", "partition", "_row_key", "column", "verdict"), ("before", "now", "why")
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
    assert purge_files(lake, CUTOFF, "notes") == 2
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


def events(*times: int) -> list[dict[str, Any]]:
    at = (datetime.fromtimestamp(one / 1000, UTC) for one in times)
    return [{"at": one, "event": "no_use", "code": "refused", "message": "it says"} for one in at]


def messages(rows: list[dict[str, Any]], column: str) -> list[list[str | None]]:
    return [[one["message"] for one in row[column]] for row in rows]


def test_messages_go_by_their_age_and_alone_leave_the_answers_to_be_read(tmp_path: Path) -> None:
    """Messages quote what they are about; what has its answer still is no purged file."""
    lake = Lake(tmp_path)
    wrong = {"error_message": "it says what", "events": events(5, 2 * CUTOFF)}
    young = {**row("young", 2 * CUTOFF), **wrong}
    young["samples"][0] |= {"events": events(5), "error_message": "it says what"}
    lake.write("notes", "responses", "p", responses(young), NOTES)
    old = {**row("old", 5), **wrong, "text": None, "samples": None}
    lake.write("notes", "responses", "q", responses(young, old), NOTES)
    rejected = [
        {
            "_row_key": key,
            "_raw_text": key,
            "_error_message": key,
            "_events": events(5, 2 * CUTOFF),
        }
        for key in ("young", "old")
    ]
    schema = tables.rejected_schema([])
    lake.write("notes", "rejected_rows", "q", pa.Table.from_pylist(rejected, schema), NOTES)
    assert purge_files(lake, CUTOFF) == 3
    for partition in ("p", "q"):
        assert lake.metadata("notes", "responses", partition) == NOTES
        after = lake.read("notes", "responses", partition).to_pylist()
        assert after[0]["error_message"] == "it says what"
        assert messages(after, "events")[0] == [None, "it says"]
        (sample,) = after[0]["samples"]
        assert messages([sample], "events") == [[None]]
        assert sample["error_message"] == "it says what"
        assert sample["text"] == "young at 2000000"
    assert after[1]["error_message"] is None
    young, old = lake.read("notes", "rejected_rows", "q").to_pylist()
    assert (young["_raw_text"], young["_error_message"]) == ("young", "young")
    assert (old["_raw_text"], old["_error_message"]) == (None, None)
    assert messages([young, old], "_events") == [[None, "it says"]] * 2
    assert purge_files(lake, CUTOFF) == 0


def test_what_verify_compared_goes_and_its_verdict_stays(lake: Lake) -> None:
    schema = pa.schema([(name, pa.string()) for name in (*NAMED, *COMPARED, "verified_at")])
    at = ("1970-01-01T00:00:05+00:00", "1970-01-01T01:00:00+00:00")
    rows = [
        ["c", "p", "r1", "mood", "mismatch", '"calm"', '"angry"', None, at[0]],
        ["c", "p", "r2", None, "indeterminate", None, None, "it says what", at[0]],
        ["c", "p", "r3", "mood", "mismatch", '"calm"', '"angry"', None, at[1]],
    ]
    made = [dict(zip(schema.names, one, strict=True)) for one in rows]
    lake.write("notes", "verified", None, pa.Table.from_pylist(made, schema))
    purge_files(lake, CUTOFF)
    after = lake.read("notes", "verified", None)
    kept = [{**one, **dict.fromkeys(("before", "now", "why"))} for one in made[:2]]
    assert after.to_pylist() == [*kept, made[2]]
    drift = read_drift(lake, "notes")
    assert drift is not None
    assert drift.rows == {"match": 0, "mismatch": 2, "indeterminate": 1}
    gone = "what was compared is purged"
    assert drift.examples == (
        ("p", f"r1, mood: {gone}"),
        ("p", 'r3, mood: was "calm", now "angry"'),
    )
    assert drift.unclear == (("p", f"r2: {gone}"),)


def kept_long_ago(store: AttachmentStore, root: Path, data: bytes) -> str:
    digest = store.keep(data)
    os.utime(root / digest[:2] / digest, (1, 1))
    return digest


def names(digest: str) -> str:
    attached = Attachment("image", sha256=digest).to_json()
    return canonical_json([{"attachments": [attached], "content": "Look", "role": "user"}])


def test_files_that_no_prompt_names_and_nobody_looked_at_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, root, now = Lake(tmp_path / "lake"), tmp_path / "attachments", now_ms()
    store = AttachmentStore(root)
    assert remove_unused(lake, store, now, now) == Unused()
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"linked")
    linked = sha256(b"linked").hexdigest()
    store.point_to(photo, linked)
    os.utime(root / linked[:2] / linked, (1, 1), follow_symlinks=False)
    named, gone, young = (kept_long_ago(store, root, name) for name in (b"a", b"b", b"c"))
    assert store.keep(b"c") == young, "a run has looked at it"
    rows = [{"_row_key": "r", "messages": names(named)}, {"_row_key": "s"}]
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    lake.write("notes", "prompts", "p", pa.Table.from_pylist(rows, tables.PROMPTS))
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "another key than that")
    blind = remove_unused(lake, store, now, now)
    assert blind.files == 0
    assert "texts in `prompts` are encrypted under key" in (blind.problem or "")
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    assert remove_unused(lake, store, 0, now) == Unused()
    assert remove_unused(lake, store, now, now) == Unused(2)
    assert [store.load(one) for one in (named, gone, young)] == [b"a", None, b"c"]
    assert store.load(linked) is None
    assert photo.read_bytes() == b"linked"
