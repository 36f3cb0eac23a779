"""What lies on the disk after a run: where, and who may read it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.audit.explain import explain_row
from ondine_dagster.assets.audit.replay import MODE_TAG
from ondine_dagster.assets.planning.plan import plan_rows
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.assets.rows.paying_again import PAY_AGAIN_TAG
from ondine_dagster.assets.rows.purged_files import purge_files
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.ledger import Ledger, close_ledger
from ondine_dagster.ledger.purge import purge
from ondine_dagster.ledger.rekey import rekey
from ondine_dagster.storage.outcomes import outcomes
from ondine_dagster.storage.rekeyed_files import rekey_files
from ondine_dagster.storage.sealed_texts import UNREADABLE
from ondine_dagster_tests.workbench import MakeBench, numbered

OUTSIDE = "../../../outside"


def files_of(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.behaviour("A-12")
def test_a_run_writes_into_the_data_folder_only_and_for_its_owner_only(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    """Also where keys of rows and partitions look like paths."""
    rows = [{**row, "kind": OUTSIDE, "id": f"{OUTSIDE}/{row['id']}"} for row in numbered(4)]
    bench = make_bench(rows, partitions={"values": {"column": "kind"}})
    before = files_of(tmp_path)
    bench.snapshot()
    assert bench.run().success
    bench.report()
    assert len(bench.rows("results")) == 4
    new = files_of(tmp_path) - before
    assert len(new) > 15
    assert {path for path in new if not path.is_relative_to(bench.data)} <= {bench.data}
    open_to_others = [
        path.relative_to(tmp_path)
        for path in (*new, bench.data)
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert not open_to_others


@pytest.mark.behaviour("A-4")
def test_a_lost_key_buys_no_answer_again(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    bench = make_bench(numbered(3))
    bench.snapshot()
    assert bench.run().success
    assert charged() == 3
    path = bench.ledger.path
    close_ledger(path)
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "another key than that")
    bench.lake.delete("notes", "responses", bench.partitions()[0])
    run = bench.run(raise_on_error=False)
    assert "ONDINE_ENCRYPTION_KEY is another one" in said(run)
    assert charged() == 0, "a wrong key is refused before anything is sent"
    opened = Ledger(path, any_key=True)
    assert rekey(opened, lost=True).other.total() == 3
    opened.close()
    run = bench.run(raise_on_error=False)
    assert "cannot be read" in said(run)
    codes = [row["_error_code"] for row in bench.rows("rejected_rows")]
    assert codes == ["answer_unreadable"] * 3
    assert charged() == 0
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 3


def readable(folder: Path, text: str) -> set[str]:
    """Return the assets, or files of the ledger, in which a text stands for who has no key."""
    found = set()
    for path in (one for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content += repr((table.to_pylist(), table.schema.metadata)).encode()
        if text.encode() in content:
            found.add(path.name if path.is_relative_to(folder / "ledger.d") else path.parent.name)
    return found


@pytest.mark.behaviour("A-3")
def test_under_a_key_prompts_and_answers_are_readable_in_results_only(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, read anew, asked again, replayed and rekeyed: nobody is asked for what is there."""
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    prompt = "[[token=answer-canary-{{ id }}]] prompt-canary"
    bench = make_bench(
        numbered(3),
        prompt={"template": prompt},
        output={"pattern": "answer-canary-r(?P<number>[01])"},
    )
    bench.snapshot()
    assert bench.run().success
    assert charged() == 3
    path = bench.ledger.path

    def seen(text: str) -> set[str]:
        close_ledger(path)
        return readable(bench.data, text) - {"manifests"}  # they hold the declaration

    assert seen("prompt-canary") == set()
    assert seen("answer-canary") == set()
    before = {asset: bench.rows(asset) for asset in (*TRIO, "prompts")}
    messages = [row["messages"] for row in before.pop("prompts")]
    assert "prompt-canary" in messages[0]
    assert before["responses"][0]["text"] == "answer-canary-r0"
    assert before["rejected_rows"][0]["_raw_text"] == "answer-canary-r2"

    assert bench.run(assets=("results", "rejected_rows")).success
    assert bench.run(tags={MODE_TAG: "replay"}).success
    assert {asset: bench.rows(asset) for asset in TRIO} == before
    assert charged() == 0
    assert bench.retry().success
    assert charged() == 1
    assert seen("answer-canary") == seen("prompt-canary") == set()

    assert rekey_files(bench.lake.root).files == 0
    monkeypatch.setenv("ONDINE_OLD_ENCRYPTION_KEY", "the first key of all")
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "another key than that")
    opened = Ledger(path, any_key=True)
    assert rekey(opened).texts == 4
    opened.close()
    assert rekey_files(bench.lake.root).files == 3
    monkeypatch.delenv("ONDINE_OLD_ENCRYPTION_KEY")
    assert bench.run(assets=("responses", "results", "rejected_rows")).success
    assert [row["messages"] for row in bench.rows("prompts")] == messages
    assert charged() == 0


@pytest.mark.behaviour("A-14")
def test_prompts_under_another_key_are_refused_and_made_anew_for_nothing(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "nobody has this key")
    bench = make_bench(numbered(3))
    bench.snapshot()
    assert bench.run().success
    assert charged() == 3
    bench.lose_answers()  # of the ledger, which would refuse the key first
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "another key than that")
    run = bench.run(assets=("responses", "results", "rejected_rows"), raise_on_error=False)
    assert "makes prompts anew" in said(run)
    assert charged() == 0
    assert bench.run().success
    assert [row["text"] for row in bench.rows("responses")] == ["t0", "t1", "t2"]


@pytest.mark.slow
def test_files_of_the_lake_lose_old_texts_and_nothing_else(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    canaries = "[[token=canary-{n}]] row {n}"
    wanted = {"pattern": "canary-(?P<number>[01])"}
    bench = make_bench(numbered(3, canaries), output=wanted)
    bench.snapshot()
    assert bench.run().success
    charged()
    results = bench.rows("results")
    before = {name: bench.rows(name) for name in ("responses", "rejected_rows")}
    assert purge_files(bench.lake, now_ms() - 60_000) == 0
    assert bench.rows("responses") == before["responses"]
    assert purge_files(bench.lake, now_ms() + 1) == 3
    (rejected,) = before["rejected_rows"]
    assert "canary-2" in rejected["_error_message"]
    quoting = {"responses": ["text"], "rejected_rows": ["_raw_text", "_error_message"]}
    for name, columns in quoting.items():
        assert bench.rows(name) == [row | dict.fromkeys(columns) for row in before[name]]
    assert purge_files(bench.lake, now_ms() + 1) == 0
    purge(bench.ledger.database, now_ms() + 1)
    assert not bench.run(raise_on_error=False).success
    run = bench.run(assets=("results", "rejected_rows"), raise_on_error=False)
    assert "cannot be read anew" in said(run)
    assert "cannot be read anew" in said(bench.retry(raise_on_error=False))
    assert bench.rows("results") == results, "what is there stays"
    assert charged() == 0
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 3
    assert bench.rows("responses")[0]["text"] is not None


def test_a_purged_refusal_which_nobody_pays_again_does_not_keep_the_old_file(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = [*numbered(1, "Fine."), {"id": "no", "text": "[[fault=refusal]]"}]
    bench = make_bench(rows, output={"fields": {"mood": {"type": "string"}}})
    bench.snapshot()
    assert bench.run().success
    assert purge_files(bench.lake, now_ms() + 1) == 2
    purge(bench.ledger.database, now_ms() + 1)
    charged()
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 1
    assert [row["text"] is None for row in bench.rows("responses")] == [False, True]


def said(run: dg.ExecuteInProcessResult) -> str:
    """Return why a run failed, as a person reads it."""
    (failure,) = [event for event in run.all_events if event.is_step_failure]
    data = failure.event_specific_data
    own = data.user_failure_data
    return own.description if own else data.error.to_string()


def test_purged_answers_are_not_bought_again_unless_a_person_says_so(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(3))
    bench.snapshot()
    assert bench.run().success
    assert charged() == 3
    results = bench.rows("results")
    assert purge(bench.ledger.database, now_ms() + 1).answers == 3
    run = bench.run(raise_on_error=False)
    assert not run.success
    (key,) = bench.partitions()
    assert said(run).endswith(f"ondine-dagster run notes --partition {key} --pay-again")
    assert "materialize" not in said(run), "that cannot help"
    replay = bench.run(tags={MODE_TAG: "replay"}, raise_on_error=False)
    assert "text was purged" in said(replay)
    assert charged() == 0, "nothing is sent"
    assert bench.rows("results") == results, "what is there stays"
    bench.lake.delete("notes", "responses", bench.partitions()[0])
    run = bench.run(raise_on_error=False)
    assert not run.success
    rejected = bench.rows("rejected_rows")
    assert [row["_error_code"] for row in rejected] == ["answer_purged"] * 3
    assert "--pay-again" in rejected[0]["_error_message"]
    assert charged() == 0
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 3
    assert [row["_outcome"] for row in bench.rows("results")] == ["ok"] * 3
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 0, "what was paid again is there"


@pytest.mark.slow
def test_a_row_that_fails_when_it_is_paid_again_does_not_keep_a_purged_file(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    """One that fails for good is rejected now; one that may succeed says how to go on."""
    rows = [
        *numbered(2),
        {"id": "no", "text": "[[fault=context_length after=1]][[token=yes]]"},
        {"id": "later", "text": "[[fault=500 after=1 times=1]][[token=late]]"},
    ]
    bench = make_bench(rows, limits={"max_attempts": 1})
    bench.snapshot()
    assert bench.run().success
    assert charged() == 4
    assert purge_files(bench.lake, now_ms() + 1) == 4
    purge(bench.ledger.database, now_ms() + 1)
    again = bench.run(tags={PAY_AGAIN_TAG: "true"}, raise_on_error=False)
    assert [row["text"] for row in bench.rows("responses")] == [None] * 4
    assert len(bench.rows("results")) == 4, "what is there stays, while it may get better"
    (key,) = bench.partitions()
    assert said(again).endswith(f"ondine-dagster run notes --partition {key} --pay-again")
    assert charged() == 2
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 1, "the others are paid"
    texts = [row["text"] for row in bench.rows("responses")]
    assert texts == ["t0", "t1", None, "late"]
    assert [row["_error_code"] for row in bench.rows("rejected_rows")] == [
        "context_length_exceeded"
    ]
    assert bench.run().success
    assert charged() == 0


def test_after_a_lost_key_all_that_asks_nobody_still_works(
    make_bench: MakeBench, charged: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what cannot be read is said to be so, with a way on that is true."""
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    bench = make_bench(
        [*numbered(2), {"id": "bad", "text": "[[token=no]]"}],
        output={"pattern": "t(?P<number>[0-9])"},
    )
    bench.snapshot()
    assert bench.run().success
    path = bench.ledger.path
    close_ledger(path)
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "another key than that")
    opened = Ledger(path, any_key=True)
    rekey(opened, lost=True)
    opened.close()
    charged()
    bench.report()
    lake, snapshot, keys = bench.lake, bench.pipeline.snapshot(bench.lake), bench.partitions()
    with reading(path) as connection:
        plan = plan_rows(bench.pipeline, lake, (lake, snapshot), keys, keys, connection)
    assert plan.rows == {Need.PAID: 3}
    (*_, message) = outcomes(lake, snapshot, ["_error_message"])["_error_message"].to_pylist()
    assert message == UNREADABLE, "as a notebook shows it"
    story = explain_row(bench.pipeline, lake, path, "bad")
    assert story.row["_error_message"] == story.row["_raw_text"] == UNREADABLE
    (request,) = story.requests
    assert (request.sent, request.sent_unreadable) == (None, True)
    assert request.request.payload_state == "unreadable"
    run = bench.run(assets=("results", "rejected_rows"), raise_on_error=False)
    assert f"run notes --partition {keys[0]}, which takes answers that are paid" in said(run)
    run = bench.run(raise_on_error=False)
    assert said(run).endswith(f"ondine-dagster run notes --partition {keys[0]} --pay-again")
    assert "materialize" not in said(run)
    verify = bench.run(assets=TRIO, tags={MODE_TAG: "verify"}, raise_on_error=False)
    assert "has no row to ask again here" in said(verify)
    assert len(bench.rows("results")) == 2, "what is there stays"
    assert charged() == 0
    assert bench.run(tags={PAY_AGAIN_TAG: "true"}).success
    assert charged() == 3
    assert len(bench.rows("results")) == 2
