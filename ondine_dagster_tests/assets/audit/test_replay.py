"""Replay: the same tables from what is recorded, with no transport made and no request sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.engine.engine import Engine
from ondine_dagster.engine.transport import Transport
from ondine_dagster_tests.small_files import png
from ondine_dagster_tests.workbench import (
    PARTITIONED,
    PROMPTS,
    RAW,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    numbered,
)

REPLAY = {"ondine/mode": "replay"}
COSTS = {"cost_usd", "cost_source", "attempts", "latency_ms", "events"}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return a context in which nothing that sends may be made."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something that sends requests was made")

    @contextmanager
    def within() -> Iterator[None]:
        with monkeypatch.context() as patched:
            for one in (Transport, Engine):
                patched.setattr(one, "__init__", refuse)
            yield

    return within


def tables(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Return all rows; an estimate of tokens learns from every answer."""
    return {
        asset: [{**row, "estimated_tokens": None} for row in bench.rows(asset)]
        for asset in PARTITIONED
    }


def without_costs(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    def plain(row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in row.items() if name.lstrip("_") not in COSTS}
        return {**kept, "samples": [plain(one) for one in row.get("samples") or ()]}

    return [plain(row) for asset in (RESPONSES, RESULTS, REJECTED) for row in found[asset]]


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    failed = [event for event in result.all_events if event.is_step_failure]
    return str(failed[0].step_failure_data.user_failure_data or failed[0].step_failure_data)


def test_the_same_tables_come_from_the_recording(
    make_bench: MakeBench, charged: Callable[[], int], no_network: Callable[[], Any]
) -> None:
    rows = numbered(8) + numbered(2, "[[fault=refusal]] row {n}", first=8)
    rows += numbered(1, "[[fault=500]] row {n}", first=10) + numbered(1, first=11)
    bench = make_bench(rows, samples=2, limits={"max_attempts": 1})
    bench.run_missing()
    assert charged() > 0
    before = tables(bench)
    notes = [bench.lake.metadata("notes", RESULTS, key) for key in bench.partitions()]
    codes = {row["error_code"] for row in before[RESPONSES]}
    assert None in codes and "refused" in codes and len(codes) == 3  # the last is no answer
    files = [
        bench.lake.path("notes", asset, key)
        for asset in (RAW, RESPONSES, RESULTS, REJECTED)
        for key in bench.partitions()
    ]
    content = [file.read_bytes() for file in files]
    with no_network():
        assert bench.run(tags=REPLAY, raise_on_error=False) is not None
    assert tables(bench) == before
    assert [file.read_bytes() for file in files] == content
    assert [bench.lake.metadata("notes", RESULTS, key) for key in bench.partitions()] == notes
    assert charged() == 0

    # from the ledger alone: what it cost is not known row by row, and all else is the same
    for asset in PARTITIONED[1:]:
        bench.lake.delete("notes", asset, "rows-00000")
    with no_network():
        bench.run("rows-00000", tags=REPLAY)
    assert without_costs(tables(bench)) == without_costs(before)
    assert charged() == 0


def test_a_miss_names_the_row_and_what_differs_and_changes_nothing(
    make_bench: MakeBench, charged: Callable[[], int], no_network: Callable[[], Any]
) -> None:
    bench = make_bench(numbered(3))
    bench.run_missing()
    before = tables(bench)
    assert charged() == 3
    attributes = bench.dataset.model_dump(mode="json", exclude_defaults=True)
    changed = [
        ({"prompt": {"template": "Other: {{ text }}"}}, "prompt changed"),
        ({"llm": {**attributes["llm"], "name": "other"}}, "model changed"),
        ({"llm": {**attributes["llm"], "temperature": 0.5}}, "sampling changed"),
        ({"output": {"fields": {"mood": {"type": "string"}}}}, "wire schema changed"),
    ]
    for section, reason in changed:
        bench.declare({**attributes, **section})
        with no_network():
            told = failure_of(bench.run(tags=REPLAY, raise_on_error=False))
        assert "3 rows cannot be replayed: row r0 (" in told and reason in told, told
        assert tables(bench)[PROMPTS] == before[PROMPTS]
    bench.declare(attributes)

    bench.lose_answers()  # the lake has them still
    with no_network():
        bench.run(tags=REPLAY)
    assert tables(bench) == before
    bench.lake.delete("notes", RESPONSES, "rows-00000")
    with no_network():
        told = failure_of(bench.run(assets=(RESPONSES,), tags=REPLAY, raise_on_error=False))
    assert "row r2 (no answer is in the ledger)" in told
    assert charged() == 0


def test_a_fallback_is_replayed_and_other_modes_are_refused(
    make_bench: MakeBench, charged: Callable[[], int], no_network: Callable[[], Any]
) -> None:
    bench = make_bench(numbered(2, "[[token=t{n}]][[fault=refusal times=1]] row {n}"))
    attributes = bench.dataset.model_dump(mode="json", exclude_defaults=True)
    prices = attributes["llm"]["prices"]
    attributes["llm"]["fallback"] = {"name": "other-model", "prices": prices}
    bench.declare(attributes)
    bench.run_missing()
    bench.retry(classes="refused")
    assert charged() == 4
    before = tables(bench)
    assert {row["model_requested"] for row in before[RESPONSES]} == {"other-model"}
    with no_network():
        bench.run(tags=REPLAY)
    assert tables(bench) == before
    wrong = failure_of(bench.run(tags={"ondine/mode": "rewind"}, raise_on_error=False))
    assert "must be one of: live, replay, verify" in wrong
    assert charged() == 0


def test_a_file_of_a_row_that_is_gone_or_another_one_is_a_miss(
    make_bench: MakeBench, charged: Callable[[], int], no_network: Callable[[], Any]
) -> None:
    """A row that had an answer must not become one that was never asked."""
    rows = [{**row, "photo": f"{row['id']}.png"} for row in numbered(3)]
    images = [{"column": "photo"}]
    bench = make_bench(rows, prompt={"template": "{{ text }}", "images": images})
    photos = [bench.folder / row["photo"] for row in rows]
    for size, photo in enumerate(photos[:2], 10):
        photo.write_bytes(png(size, size))
    bench.run_missing()
    assert charged() == 2
    before = tables(bench)

    photos[0].unlink()
    photos[1].write_bytes(png(30, 30))
    photos[2].write_bytes(png(30, 30))
    with no_network():
        told = failure_of(bench.run(tags=REPLAY, raise_on_error=False))
    assert "row r0 (it has no prompt any more: attachment_missing)" in told
    assert "row r1 (its image or document is another one); row r2 (its image" in told
    assert tables(bench) == before

    for size, photo in enumerate(photos[:2], 10):
        photo.write_bytes(png(size, size))
    photos[2].unlink()
    with no_network():
        bench.run(tags=REPLAY)
    assert tables(bench) == before and charged() == 0


def test_packs_placeholders_and_sealed_texts_are_replayed_along_a_chain(
    make_bench: MakeBench,
    charged: Callable[[], int],
    no_network: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    rows = numbered(4, "row {n}, mail me: ana{n}@example.com")
    rows += numbered(1, "[[fault=pack_missing]] row {n}", first=4)
    rows += numbered(1, "[[fault=refusal]] row {n}", first=5)
    output = {"fields": {"score": {"type": "integer"}}}
    private = {"privacy": {"prompt": "placeholders"}}
    first = make_bench(rows, **private, output=output, batching={"rows_per_request": 5})
    template = "{{ score }}: {{ text }}"
    second = make_bench(
        name="second",
        source={"dataset": "notes"},
        prompt={"template": template},
        output={"column": "said"},
        when="id != 'r1'",
        **private,
    )
    for bench in (first, second):
        bench.run_missing()
    assert charged() > 6
    flags = {row["flags"] for row in first.rows(RESPONSES)}
    assert any("pack_missing" in (each or "") for each in flags)
    assert second.rows(RESULTS)[0]["said"].endswith("ana0@example.com")
    before = [tables(bench) for bench in (first, second)]
    (first.folder / "notes.csv").unlink()
    with no_network():
        for bench in (first, second):
            bench.run(tags=REPLAY)
    assert [tables(bench) for bench in (first, second)] == before and charged() == 0
