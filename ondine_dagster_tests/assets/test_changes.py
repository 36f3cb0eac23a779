"""What costs money after a change and what does not: of rows, of the declaration, of the host."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.export import export
from ondine_dagster_tests.workbench import (
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
    write_rows,
)

LABELS = [f"label-{n}" for n in range(6)]
FIELDS = {"label": {"type": "string", "enum": LABELS}, "score": {"type": "integer"}}


def exported(bench: Bench) -> list[dict[str, str]]:
    """Return the rows of an export, as a spreadsheet would read them."""
    to = bench.folder / "out.csv"
    export(bench.lake, bench.dataset.name, to)
    with open(to, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.behaviour("B-2d")
@pytest.mark.parametrize("key", [{"key": "id"}, {}], ids=["declared key", "no key"])
def test_after_inserting_deleting_and_shuffling_only_new_rows_are_paid(
    make_bench: MakeBench, charged: Callable[[], int], key: dict[str, str]
) -> None:
    source = {"path": "notes.csv", **key}
    rows = numbered(60)
    bench = make_bench(rows, source=source)
    bench.run_missing()
    assert charged() == 60

    kept = rows[:7] + rows[12:]
    random.Random(7).shuffle(kept)
    changed = numbered(10, first=1000) + kept
    write_rows(bench.folder / "notes.csv", changed)
    wanted = bench.run_missing()
    assert wanted == ["rows-00000", "rows-00001", "rows-00006"]
    assert charged() == 10

    out = exported(bench)
    assert [(row["id"], row["text"]) for row in out] == [(r["id"], r["text"]) for r in changed]
    assert [row["response"] for row in out] == [f"t{row['id'][1:]}" for row in changed]
    assert set(bench.states().values()) == {"done"}


@pytest.mark.behaviour("B-2d")
def test_sorting_the_source_leaves_nothing_to_run(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(25)
    bench = make_bench(rows)
    bench.run_missing()
    write_rows(bench.folder / "notes.csv", rows[::-1])
    charged()
    assert bench.run_missing() == []
    assert charged() == 0
    assert [row["id"] for row in exported(bench)] == [row["id"] for row in rows[::-1]]


@pytest.mark.behaviour("B-2d")
def test_an_edited_row_makes_its_partition_changed_and_is_the_only_one_paid(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(30)
    bench = make_bench(rows)
    bench.run_missing()
    rows[14] = {"id": "r14", "text": "[[token=other]] edited"}
    write_rows(bench.folder / "notes.csv", rows)
    bench.snapshot()
    assert bench.states() == {"rows-00000": "done", "rows-00001": "changed", "rows-00002": "done"}
    shown = exported(bench)[14]
    assert (shown["text"], shown["response"]) == ("[[token=t14]] row 14", "t14"), "never mixed"
    charged()
    assert bench.run_missing() == ["rows-00001"]
    assert charged() == 1
    assert exported(bench)[14]["response"] == "other"


@pytest.mark.behaviour("B-2d")
def test_a_value_of_another_kind_in_a_column_of_json_pays_for_no_other_row(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    prompt = {"template": "{{ price }}, {{ price * 2 }}, {{ sold }}, {{ code ~ '' }}"}
    bench = make_bench(source={"path": "notes.jsonl"}, prompt=prompt)
    path = bench.folder / "notes.jsonl"
    rows = [{"price": 10 * n, "sold": n % 2 == 0, "code": n} for n in range(1, 13)]
    for new in ({"price": 12.5}, {"price": 13, "sold": "?"}, {"price": 14, "code": "7b"}):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        bench.run_missing()
        charged()
        rows.append(new)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

        bench.run_missing()

        assert charged() == 1, new


def test_a_partition_stays_known_while_a_run_of_a_job_may_work_on_it(
    make_bench: MakeBench,
) -> None:
    rows = numbered(20)
    bench = make_bench(rows)
    bench.snapshot()
    label = create_run_for_test(
        bench.instance, job_name="notes__label", status=dg.DagsterRunStatus.STARTED
    )
    write_rows(bench.folder / "notes.csv", rows[:10])
    bench.snapshot()
    assert bench.instance.get_dynamic_partitions("notes") == ["rows-00000", "rows-00001"]
    bench.instance.report_run_canceled(label)
    bench.snapshot()
    assert bench.instance.get_dynamic_partitions("notes") == ["rows-00000"]


@pytest.mark.behaviour("B-2d")
def test_a_partition_whose_rows_are_all_gone_leaves_dagster_and_the_results(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    rows = numbered(30)
    bench = make_bench(rows)
    bench.run_missing()
    charged()
    write_rows(bench.folder / "notes.csv", rows[:10] + rows[20:])
    assert bench.run_missing() == []
    assert charged() == 0
    assert bench.instance.get_dynamic_partitions("notes") == ["rows-00000", "rows-00002"]
    assert len(exported(bench)) == 20


@pytest.mark.parametrize(
    "changes",
    [{"score": {"column": "stars"}}, {"label": {"accept": LABELS[:2]}}],
    ids=["column", "accept"],
)
def test_a_local_change_parses_again_for_nothing(
    make_bench: MakeBench, charged: Callable[[], int], changes: dict[str, Any]
) -> None:
    bench = make_bench(numbered(20), output={"fields": FIELDS})
    bench.run_missing()
    before = bench.rows(RESULTS)
    answered = len(bench.events(RESPONSES))
    charged()

    fields = {name: {**field, **changes.get(name, {})} for name, field in FIELDS.items()}
    attributes = bench.dataset.model_dump(mode="json", exclude_unset=True)
    bench.declare({**attributes, "output": {"fields": fields}})
    assert set(bench.states().values()) == {"unparsed"}
    bench.run(assets=[RESULTS, REJECTED])
    assert charged() == 0
    assert len(bench.events(RESPONSES)) == answered
    assert set(bench.states().values()) == {"done"}

    after, rejected = bench.rows(RESULTS), bench.rows(REJECTED)
    if "score" in changes:
        assert [row["stars"] for row in after] == [row["score"] for row in before]
        assert "score" not in bench.table(RESULTS).column_names
    else:
        assert [r["id"] for r in after] == [r["id"] for r in before if r["label"] in LABELS[:2]]
        assert 0 < len(rejected) < 20
        assert {row["_error_code"] for row in rejected} == {"field_not_accepted"}
        assert all('"label"' in row["_raw_text"] for row in rejected)


def test_a_changed_question_is_stale_and_waits_until_it_is_asked_for(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(20))
    bench.run_missing()
    charged()
    attributes = bench.dataset.model_dump(mode="json", exclude_unset=True)
    bench.declare({**attributes, "prompt": {"system": "New.", "template": "{{ text }}"}})
    assert set(bench.states().values()) == {"stale"}
    assert bench.run_missing() == []
    assert charged() == 0
    bench.run()
    assert charged() == 20
    assert set(bench.states().values()) == {"done"}
    bench.declare(attributes)
    assert set(bench.states().values()) == {"stale"}
    bench.run()
    assert charged() == 0, "the old question was paid before"


def test_answers_are_not_matched_with_prompts_of_another_declaration(
    make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(numbered(10))
    bench.run_missing()
    charged()
    attributes = bench.dataset.model_dump(mode="json", exclude_unset=True)
    bench.declare({**attributes, "prompt": {"template": "New: {{ text }}"}})
    with pytest.raises(Exception, match="Materialize `prompts` with `responses`"):
        bench.run(assets=[RESPONSES, RESULTS, REJECTED])
    assert charged() == 0


def test_a_server_that_moves_is_paid_nothing(
    make_bench: MakeBench,
    charged: Callable[[], int],
    simulator_factory: Callable[..., Simulator],
) -> None:
    bench = make_bench(numbered(20))
    bench.run_missing()
    charged()
    with_old_server = bench.rows(RESULTS)
    moved = simulator_factory()
    bench.declare(declaration(moved))
    assert set(bench.states().values()) == {"done"}
    bench.run()
    assert (charged(), moved.bill.totals.requests) == (0, 0)
    same = [name for name in with_old_server[0] if name[1:] not in REUSE]
    for old, new in zip(with_old_server, bench.rows(RESULTS), strict=True):
        assert [new[name] for name in same] == [old[name] for name in same]


# what a row says of an answer that was there already
REUSE = {"cost_usd", "cost_source", "attempts", "latency_ms"}


def test_a_raised_ceiling_pays_nothing_for_answers_that_were_whole(
    make_bench: MakeBench, charged: Callable[[], int], simulator: Simulator
) -> None:
    rows = numbered(10)
    rows[3]["text"] = "[[token=" + "x" * 100 + "]]"
    bench = make_bench(rows)
    attributes = bench.dataset.model_dump(mode="json", exclude_unset=True)
    bench.declare({**attributes, "llm": {**attributes["llm"], "max_tokens": 8}})
    bench.run_missing()
    (cut,) = bench.rows(REJECTED)
    assert (cut["id"], cut["_error_code"]) == ("r3", "truncated")
    charged()
    bench.declare({**attributes, "llm": {**attributes["llm"], "max_tokens": 64}})
    bench.run()
    assert charged() == 1
    assert bench.rows(RESULTS)[3]["response"] == "x" * 100
