"""The story of a row: every request, over all runs, whatever way it was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from ondine_dagster.assets.audit.explain import RowStory, explain_row
from ondine_dagster.cli.explain import document
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.history import requests_for_row
from ondine_dagster_tests.workbench import Bench, MakeBench, numbered

ONCE = "[[token=t{n}]][[fault=null_content times=1]] row {n}"


def story(bench: Bench, row_key: str) -> RowStory:
    return explain_row(bench.pipeline, bench.lake, bench.ledger.path, row_key)


def sent(one: Any) -> str:
    assert one.sent is not None
    return str(one.sent[-1]["content"])


def test_all_requests_of_a_row_with_what_was_sent_and_what_each_cost(
    make_bench: MakeBench,
) -> None:
    same = {"id": "same", "text": numbered(1)[0]["text"]}
    rows = [*numbered(2), *numbered(1, ONCE, first=2), same]
    bench = make_bench(rows)
    bench.run_missing()
    bench.retry()

    found = story(bench, "r2")
    assert (found.partition, found.place) == ("rows-00000", "results")
    assert [one.request.kind for one in found.requests] == ["first", "retry"]
    bad, good = found.requests
    assert (bad.request.answer_code, bad.request.current) == ("content_null", False)
    assert '"content":null' in (bad.request.text or "")
    assert good.request.current and "t2" in (good.request.text or "")
    assert sent(bad) == sent(good) == rows[2]["text"]
    cost = sum(one.request.cost_share or 0 for one in found.requests)
    charged = bench.attempts("sum(cost)", "id in (select attempt from asks where row_key='r2')")
    assert cost == charged[0][0] > 0
    assert bad.trace_id != good.trace_id  # of two runs

    # a row whose question another row has asked was answered by that one's request
    shared = story(bench, "same")
    assert [one.request.for_row for one in shared.requests] == ["r0"]

    told = document(found)
    assert json.loads(json.dumps(told, default=str))["requests"][1]["cost_usd"] != "0"
    assert told["requests"][1]["id"] == good.request.id.hex()


def test_fallback_and_a_prompt_that_has_changed_since(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2, "[[token=t{n}]][[fault=refusal times=1]] row {n}"))
    bench.run_missing()
    attributes = bench.dataset.model_dump(mode="json", exclude_defaults=True)
    llm = attributes["llm"]
    llm["fallback"] = {"name": "other-model", "prices": llm["prices"]}
    bench.declare(attributes)
    bench.retry(classes="refused")
    requests = story(bench, "r1").requests
    assert [one.question for one in requests] == ["its question", "fallback"]
    assert [one.request.model_requested for one in requests] == ["demo-model", "other-model"]

    attributes["prompt"] = {"template": "New: {{ text }}"}
    bench.declare(attributes)
    bench.run()
    requests = story(bench, "r1").requests
    assert [one.question for one in requests][:2] == ["an earlier question"] * 2
    assert [one.sent is None for one in requests] == [True, True, False]
    assert sent(requests[2]).startswith("New: ")


def test_packs_samples_and_what_was_asked_once_more(make_bench: MakeBench) -> None:
    rows = numbered(4) + numbered(1, "[[fault=pack_missing]] row {n}", first=4)
    packed = make_bench(rows, name="packed", batching={"rows_per_request": 5})
    packed.run_missing()
    (only,) = story(packed, "r0").requests
    assert only.request.rows == 5 and (only.request.cost_share or 0) < (only.request.cost or 0)
    assert only.problem is None
    missing, repaired = story(packed, "r1").requests
    assert missing.problem == "its part of the answer is missing or damaged"
    assert missing.request.verdict == "pack_missing"
    assert (repaired.request.kind, repaired.problem) == ("split", None)

    output = {"fields": {"score": {"type": "integer"}}}
    several = make_bench(numbered(1, "[[token=t{n}]] row {n}"), name="several", samples=2)
    several.run_missing()
    told = story(several, "r0").requests
    assert {one.question for one in told} == {"sample 1", "sample 2"}
    assert {one.problem for one in told} == {None}

    again = make_bench(
        numbered(1, "[[fault=wrong_schema times=1]] row {n}"),
        name="again",
        output={**output, "reask": 1},
    )
    again.run_missing()
    first, second = story(again, "r0").requests
    assert second.request.kind == "reask" and first.sent is not None and second.sent is not None
    assert len(second.sent) == len(first.sent) + 2
    assert "cannot be used" in sent(second)
    assert "`score` is missing" in (first.problem or "")


def test_rows_that_were_never_asked(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2))
    bench.snapshot()
    assert story(bench, "r1").place == "not run yet"
    with pytest.raises(OndineError, match="has no row 'r9', and none was ever asked"):
        story(bench, "r9")


def test_one_row_is_found_without_a_look_at_every_request(make_bench: MakeBench) -> None:
    """With a million requests the join of all of them took three seconds."""
    bench = make_bench(numbered(2))
    bench.run_missing()
    asked: list[tuple[str, Any]] = []
    keys = [row["answer_key"] for row in bench.rows("prompts")]
    with bench.ledger.database.read() as connection:
        sa.event.listen(
            connection, "before_cursor_execute", lambda *args: asked.append((args[2], args[3]))
        )
        assert len(requests_for_row(connection, "notes", "r1", keys)) == 2
        [(statement, values)] = asked
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    scanned = [detail for *_, detail in plan if detail.startswith("SCAN")]
    assert "SCAN asks" in scanned and "attempts" not in str(scanned), plan


def test_without_the_key_no_question_is_called_an_earlier_one(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    bench = make_bench(numbered(1, "row {n}"), samples=2)
    bench.run_missing()
    monkeypatch.delenv("ONDINE_ENCRYPTION_KEY")
    told = story(bench, "r0").requests
    other = "another of its questions, or an earlier one"
    assert [(one.question, one.sent_unreadable) for one in told] in (
        [("sample 1", True), (other, True)],
        [(other, True), ("sample 1", True)],
    )
    assert {one.request.payload_state for one in told} == {"unreadable"}
