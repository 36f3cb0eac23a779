"""The type of the results as a DataFrame: what holds for its columns, shown and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ondine_dagster import results_type
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.frames import load_as
from ondine_dagster_tests.spec.declarations import attributes
from ondine_dagster_tests.workbench import REJECTED, RESULTS, MakeBench, numbered

FIELDS: dict[str, Any] = {
    "label": {"type": "string", "enum": ["good", "bad"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 10, "accept": {"maximum": 8}},
    "share": {"type": "number", "required": False},
    "sure": {"type": "boolean", "required": False},
    "code": {"type": "string", "accept": {"pattern": "[A-Z]+"}, "column": "letters"},
    "tags": {"type": "array", "items": {"type": "string"}},
}
ROW = {
    "label": "good",
    "score": 8,
    "share": None,
    "sure": None,
    "letters": "AB",
    "tags": ["x"],
    "_row_key": "1",
}
Check = Callable[..., dg.TypeCheck]


def dataset(**changes: Any) -> Dataset:
    return Dataset.model_validate(attributes(output={"fields": FIELDS}, **changes))


def frame(**changes: Any) -> pd.DataFrame:
    columns = {name: [value] for name, value in (ROW | changes).items()}
    types = {"label": "string", "score": "Int64", "share": "Float64", "sure": "boolean"}
    return pd.DataFrame(columns).astype({**types, "letters": "string", "_row_key": "string"})


@pytest.fixture
def check() -> Check:
    context: Any = None
    return lambda table, **changes: results_type(dataset(**changes)).type_check(context, table)


def test_a_frame_of_results_is_one(check: Check) -> None:
    assert check(frame()).success
    assert check(frame().iloc[:0]).success


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "fine"}, "one of: good, bad"),
        ({"label": None}, "not NULL"),
        ({"score": 9}, "at most 8"),
        ({"score": -1}, "at least 0"),
        ({"letters": "a"}, "matches [A-Z]+"),
    ],
)
def test_what_does_not_hold_is_told(check: Check, changes: dict[str, Any], said: str) -> None:
    found = check(frame(**changes))
    assert not found.success
    assert said in str(found.description)


def test_columns_keys_and_types_are_looked_at(check: Check) -> None:
    assert "score" in str(check(frame().drop(columns="score")).description)
    assert "unique" in str(check(pd.concat([frame(), frame()])).description)
    assert "integer" in str(check(frame().astype({"score": "string"})).description)
    assert not check([1]).success


def test_a_value_may_be_null_where_rows_are_skipped(check: Check) -> None:
    assert check(frame(label=None), when="id > 1").success


def test_what_holds_is_in_the_description_that_dagster_shows() -> None:
    description = results_type(dataset()).description or ""
    for words in ("**label**", "one of: good, bad", "at most 8", "not NULL"):
        assert words in description


def test_one_dataset_has_one_type() -> None:
    assert results_type(dataset()) is results_type(dataset())


def test_a_dataset_that_is_not_there_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OndineError, match="no project here"):
        results_type("reviews")
    with pytest.raises(OndineError):
        results_type(tmp_path / "nowhere.yaml")


def test_a_violation_is_a_rejected_row_and_what_is_left_has_the_type(make_bench: MakeBench) -> None:
    fields = {
        "label": {"type": "string", "accept": ["t0", "t2"], "description": "What it is."},
        "share": {"type": "number", "required": False},
    }
    bench = make_bench(numbered(3), output={"fields": fields})
    bench.run_missing()
    assert [row["id"] for row in bench.rows(REJECTED)] == ["r1"]
    kind = results_type(bench.dataset, bench.folder / "defs.yaml")

    @dg.asset(
        ins={"results": dg.AssetIn(bench.key(RESULTS), dagster_type=kind)},
        io_manager_key="ondine_io_manager",
        dagster_type=kind,
    )
    def same(results: pd.DataFrame) -> pd.DataFrame:
        return results

    project = dg.Definitions.merge(bench.definitions, dg.Definitions(assets=[same]))
    done = dg.materialize(
        list(project.assets or ()),
        selection=[dg.AssetKey("same")],
        instance=bench.instance,
        resources=dict(project.resources or {}),
    )
    assert done.success
    file = bench.lake.path("notes", RESULTS, bench.partitions()[0])
    context: Any = None
    assert kind.type_check(context, load_as(pd.DataFrame, [file])).success
    columns = bench.events(RESULTS)[-1].asset_materialization
    assert columns is not None
    schema = columns.metadata["dagster/column_schema"].value
    (label,) = [one for one in schema.columns if one.name == "label"]
    assert (label.description, label.constraints.nullable) == ("What it is.", False)
    assert label.constraints.other == ["one of: t0, t2"]
