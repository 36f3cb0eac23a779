"""Verify: some rows asked again, compared by their columns, and nothing of the tables changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import dagster as dg
import pytest

from ondine_dagster.assets.audit.verify import read_drift
from ondine_dagster.assets.audit.verify_sample import Wanted, sample
from ondine_dagster.errors import OndineError
from ondine_dagster_tests.workbench import PARTITIONED, Bench, MakeBench, numbered

TRIO = PARTITIONED[2:]


_OBSERVER = """
from pathlib import Path

class Seen:
    def on_event(self, event):
        name = type(event).__name__
        if name == "RunEnded":
            name += f":{event.rows}:{event.requests}"
        with Path(__file__).with_name("seen.txt").open("a") as file:
            print(name, file=file)
"""


def verify(
    bench: Bench, rows: int = 20, first: str | None = None, **tags: str
) -> dg.ExecuteInProcessResult:
    tags = {f"ondine/{name}": text for name, text in tags.items()}
    tags |= {"ondine/mode": "verify", "ondine/verify_rows": str(rows)}
    return bench.run(first, assets=TRIO, tags=tags)


def drift_check(bench: Bench) -> dg.AssetCheckEvaluation:
    events = bench.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(bench.key("results"), "drift"), limit=1
    )
    assert events[0].event is not None and events[0].event.dagster_event is not None
    return events[0].event.dagster_event.asset_check_evaluation_data


def test_what_differs_is_told_and_no_table_changes(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(numbered(12))
    bench.run_missing()
    assert charged() == 12
    before = {asset: bench.rows(asset) for asset in PARTITIONED}
    materialized = len(bench.events("responses"))

    (bench.folder / "of_verify.py").write_text(_OBSERVER)
    monkeypatch.setenv("ONDINE_OBSERVER", "of_verify:Seen")
    verify(bench, rows=5)
    monkeypatch.delenv("ONDINE_OBSERVER")
    assert charged() == 5
    seen = Counter((bench.folder / "seen.txt").read_text().split())
    assert seen == {"RunStarted": 1, "RequestSent": 5, "AttemptEnded": 5, "RunEnded:5:5": 1}
    numbers = (bench.data / "metrics" / "ondine_notes.prom").read_text()
    assert 'ondine_last_run_requests{dataset="notes"} 5' in numbers
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows == {"match": 5, "mismatch": 0, "indeterminate": 0}
    assert drift_check(bench).passed

    # the model changed its mind about some, and one brings no answer
    with bench.ledger.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE payloads SET body = CAST('old' AS BLOB) WHERE answer IN (SELECT id FROM "
            "answers WHERE current = 1 AND attempt IN (SELECT attempt FROM asks WHERE row_key IN "
            "('r1', 'r11')))"
        )
    verify(bench)
    assert charged() == 12
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows == {"match": 10, "mismatch": 2, "indeterminate": 0}
    check = drift_check(bench)
    assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN
    assert "drift 16.7 %, 0 % allowed" in (check.description or "")
    assert check.metadata["drift_percent"].value == pytest.approx(100 / 6)
    assert 'was "old", now "t11"' in str(check.metadata["partitions"].value)

    assert {asset: bench.rows(asset) for asset in PARTITIONED} == before
    assert len(bench.events("responses")) == materialized
    kinds = {kind for (kind,) in bench.attempts("kind", "number = 1 and kind <> 'first'")}
    assert kinds == {"verify"}
    current = bench.attempts(
        "count(*)", "kind = 'verify' and id in (select attempt from answers where current = 1)"
    )
    assert current[0][0] == 0 and bench.contradictions() == []
    bench.run()  # a verify take is nobody's answer
    assert charged() == 0

    # a run of one partition takes rows of all where it says so, and may allow more or less
    verify(bench, first="rows-00001", verify_from="all", max_drift="17")
    assert charged() == 12 and drift_check(bench).passed
    verify(bench, first="rows-00001")
    assert charged() == 2
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows["mismatch"] == 1 and found.passed(0.5)
    assert not drift_check(bench).passed


def test_a_budget_holds_and_rows_without_an_answer_are_indeterminate(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(4) + numbered(1, "[[fault=refusal after=1]] row {n}", first=4)
    bench = make_bench(
        rows, limits={"budgets": [{"requests": 8, "per": "total"}], "concurrency": 1}
    )
    bench.run_missing()
    assert charged() == 5
    verify(bench)
    assert charged() == 3
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows["indeterminate"] >= 2
    assert sum(found.rows.values()) == 5
    assert {key for _, key in found.unclear} == {
        f"{row['_row_key']}: {row['why']}"
        for row in bench.lake.read("notes", "verified", None).to_pylist()
        if row["verdict"] == "indeterminate"
    }
    wrong = bench.run(
        assets=TRIO,
        tags={"ondine/mode": "verify", "ondine/verify_rows": "many"},
        raise_on_error=False,
    )
    assert not wrong.success and charged() == 0


def test_an_answer_of_no_use_differs_and_no_answer_tells_nothing(make_bench: MakeBench) -> None:
    """A model that begins to refuse must not pass for one that says the same."""
    faults = {"r2": "refusal", "r3": "wrong_schema", "r4": "500"}
    rows = [
        {"id": key, "text": f"[[fault={faults[key]} after=1]] {key}" if key in faults else key}
        for key in ("r0", "r1", *faults)
    ]
    fields = {"mood": {"type": "string", "enum": ["angry", "calm"]}}
    bench = make_bench(rows, output={"fields": fields}, limits={"max_attempts": 1})
    bench.run_missing()
    verify(bench, max_drift="40")
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows == {"match": 2, "mismatch": 2, "indeterminate": 1}
    told = [text for _, text in found.examples]
    assert told[0].startswith("r2: an answer of no use: the model refused")
    assert told[1].startswith("r3: an answer of no use: field `mood` is missing")
    assert [text.partition(":")[0] for _, text in found.unclear] == ["r4"]
    assert not drift_check(bench).passed  # two of four


def test_each_row_is_as_likely_and_the_same_seed_draws_the_same(make_bench: MakeBench) -> None:
    rows = [{**row, "part": "small" if n < 2 else "large"} for n, row in enumerate(numbered(12))]
    rows[3]["text"] = rows[4]["text"]  # one question, two rows
    bench = make_bench(rows, partitions={"values": {"column": "part"}})
    bench.run_missing()

    def drawn(seed: str) -> list[str]:
        wanted = Wanted(3, seed, None, everywhere=True)
        found = sample(bench.pipeline, bench.ledger, bench.lake, bench.partitions(), wanted)
        places = [bench.partitions().index(one.partition) for one in found]
        assert places == sorted(places) and len(found) == 3
        return [one.question.row_key for one in found]

    assert drawn("a") == drawn("a") != drawn("b")
    counts = Counter(key for seed in range(200) for key in drawn(str(seed)))
    assert len(counts) == 12 and all(30 <= count <= 70 for count in counts.values()), counts

    # rows that cannot be compared are made up for by others
    with bench.ledger.database.write() as connection:
        connection.exec_driver_sql(
            "DELETE FROM payloads WHERE answer IN (SELECT id FROM answers JOIN asks USING "
            "(attempt) WHERE row_key NOT IN ('r0', 'r1', 'r3'))"
        )
    assert sorted(drawn("a")) == ["r0", "r1", "r3"]


def test_without_the_key_it_is_said_that_texts_cannot_be_read(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    bench = make_bench(numbered(2))
    bench.run_missing()
    verify(bench)
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows["match"] == 2 and charged() == 4
    monkeypatch.delenv("ONDINE_ENCRYPTION_KEY")
    wanted = Wanted(1, "", None, everywhere=True)
    with pytest.raises(OndineError, match="ONDINE_ENCRYPTION_KEY is not set"):
        sample(bench.pipeline, bench.ledger, bench.lake, bench.partitions(), wanted)
