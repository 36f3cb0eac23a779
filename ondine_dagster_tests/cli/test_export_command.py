"""`export`, the command and the asset: files and tables, from options, environment, declaration."""

from __future__ import annotations

import csv
import errno
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.component.declarations import load_declaration
from ondine_dagster.ledger.tracing import trace_id
from ondine_dagster.storage.export_file import ExportFile
from ondine_dagster_tests.cli.typing_person import Person


@pytest.fixture
def labelled(person: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """A dataset of three rows that is run, in a folder of its own, with a file and a table."""
    monkeypatch.chdir(person.folder)
    monkeypatch.setenv("WAREHOUSE_URL", f"duckdb:///{person.folder}/warehouse.duckdb")
    targets: list[dict[str, Any]] = [
        {"to": "labels.csv"},
        {"to_variable": "WAREHOUSE_URL", "table": "labels", "mode": "update", "lineage": True},
    ]
    person.write(3, export=targets)
    result = person.runs()
    assert result.exit_code == 0, result.output
    assert "labels.csv" in result.stdout
    return person


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def asked(path: Path, query: str) -> list[Any]:
    with duckdb.connect(str(path)) as connection:
        return connection.execute(query).fetchall()


def test_a_run_writes_what_the_declaration_names_and_the_command_does_so_again(
    labelled: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(rows_of(labelled.folder / "labels.csv")) == 3
    warehouse = labelled.folder / "warehouse.duckdb"
    query = "select count(*), min(_outcome), count(distinct _question_version) from labels"
    assert asked(warehouse, query) == [(3, "ok", 1)]
    (declared,) = load_declaration(labelled.declared_in)
    pipeline = Pipeline(declared.dataset, declared.declared_in, declared.project_root)
    ((version,),) = asked(warehouse, "select min(_question_version) from labels")
    assert version == pipeline.question_version
    with labelled.dagster() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["notes", "export"]))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = {k: v.value for k, v in event.asset_materialization.metadata.items()}
        paid = instance.get_latest_materialization_event(dg.AssetKey(["notes", "responses"]))
        assert paid is not None
    assert metadata["export_1/rows"] == 3
    assert metadata["export_2/added"] == 3
    assert metadata["export_2/overwritten"] == 0

    labelled.folder.joinpath("labels.csv").unlink()
    again = labelled.types("export", str(labelled.declared_in))
    assert again.exit_code == 0, again.output
    assert "3 rows in table labels of" in again.stderr
    assert "0 added, 3 overwritten, 0 removed" in again.stderr
    assert len(rows_of(labelled.folder / "labels.csv")) == 3

    monkeypatch.setenv("ONDINE_TRACES", "otlp")
    labelled.types("export", str(labelled.declared_in), "--to", "traced.parquet", "--lineage")
    partition = paid.asset_materialization.partition if paid.asset_materialization else None
    trace = trace_id(paid.run_id, "notes", partition).hex()
    assert pq.read_table("traced.parquet")["_trace_id"].to_pylist() == [trace] * 3
    monkeypatch.delenv("ONDINE_TRACES")

    to = ("--to", "duckdb:///own.duckdb", "--mode", "append")
    own = labelled.types("export", str(labelled.declared_in), *to)
    assert "3 rows in table notes of" in own.stderr
    assert asked(Path("own.duckdb"), "select count(*) from notes") == [(3,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "x.csv", "--mode", "update"], "--mode is update, which is for tables"),
        (["--to", "x.csv", "--table", "t"], "--table is for databases"),
        (["--to", "x.doc"], "--to is 'x.doc'; it must end in one of"),
        (["--mode", "update"], "--to is missing"),
        (["--to", "a.csv", "--to-variable", "A"], "--to is set beside --to-variable"),
        (["--to", "mysql://u:canary@h/d"], "--to is not the URL of a database"),
        (["--to-variable", "postgresql://u:canary@h/d"], "not the name of an environment variable"),
        (["--to-variable", "NOWHERE_URL"], "the environment variable NOWHERE_URL is not set"),
        (["--to", "sqlite:///x.sqlite"], "SQLite"),
        ([], "declares no `export`"),
    ],
)
def test_wrong_options_are_told_and_no_password_is_shown(
    person: Person, options: list[str], words: str
) -> None:
    person.write(1)
    result = person.types("export", str(person.declared_in), *options)
    assert result.exit_code == 1
    assert words in result.output
    assert "canary" not in result.output


def test_the_table_that_rows_come_from_is_not_written_over(person: Person) -> None:
    shop = person.folder / "shop.duckdb"
    with duckdb.connect(str(shop)) as connection:
        connection.execute("create table notes as select 1 as id, 'a' as text")
    person.write(1, source={"database": "duckdb:///shop.duckdb", "table": "main.notes"})
    options = ("--to", f"duckdb:///{shop}", "--table", "Notes")
    result = person.types("export", str(person.declared_in), *options)
    assert result.exit_code == 1
    assert "is the source of notes" in result.output
    assert asked(shop, "select * from notes") == [(1, "a")]


def test_a_full_disk_keeps_no_other_export_from_being_written(
    labelled: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    (declared,) = load_declaration(labelled.declared_in)
    place = {"declared_in": declared.declared_in, "project_root": declared.project_root}
    commit = ExportFile.commit

    def full(self: ExportFile) -> None:
        if self._file.path.name == "labels.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        commit(self)

    monkeypatch.setattr(ExportFile, "commit", full)
    labelled.folder.joinpath("warehouse.duckdb").unlink()
    with labelled.dagster() as instance:
        run = (
            build_definitions(declared.dataset, **place)
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(["notes", "export"])],
                raise_on_error=False,
            )
        )
    (failed,) = run.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data.description
    assert told == "Cannot export to labels.csv: No space left on device."
    assert asked(labelled.folder / "warehouse.duckdb", "select count(*) from labels") == [(3,)]


def test_what_runs_by_itself_makes_the_exports_too(person: Person) -> None:
    person.write(1, export={"to": "labels.csv"})
    (declared,) = load_declaration(person.declared_in)
    place = {"declared_in": declared.declared_in, "project_root": declared.project_root}
    definitions = build_definitions(declared.dataset, **place)
    label = definitions.resolve_job_def("notes__label")
    chosen = {key.to_user_string() for key in label.asset_layer.selected_asset_keys}
    assert {"notes/responses", "notes/report", "notes/export"} <= chosen
    graph = definitions.resolve_asset_graph()
    parents = graph.get(dg.AssetKey(["notes", "export"])).parent_keys
    assert {key.path[-1] for key in parents} == {"results", "rejected_rows"}
