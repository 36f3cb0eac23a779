"""What can be seen of a declaration without a run, over sources that have everything.

What is sent, what it counts for, what the assets look like, what is made of rows and answers.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from openpyxl import Workbook

from ondine_dagster.assets.audit.verify import Drift
from ondine_dagster.assets.checks import check_specs, severity_of
from ondine_dagster.assets.export import export_to
from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.monitoring.observer import observers_of
from ondine_dagster.assets.prompts import write_prompts
from ondine_dagster.assets.raw_rows import write_raw_rows
from ondine_dagster.assets.rows.packs import pack_plan
from ondine_dagster.assets.rows.redaction import at_rest
from ondine_dagster.assets.rows.samples import samples_of
from ondine_dagster.assets.shared import tables
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState, PartitionStatus
from ondine_dagster.assets.verdicts.facts import Facts, PartitionFacts
from ondine_dagster.assets.verdicts.field_counts import FieldCounts
from ondine_dagster.assets.verdicts.field_verdicts import field_verdicts
from ondine_dagster.assets.verdicts.pilot import pilot_plan
from ondine_dagster.assets.verdicts.source_verdicts import not_shrunk
from ondine_dagster.assets.verdicts.verdicts import partition_verdicts
from ondine_dagster.engine.azure_identity import token_source
from ondine_dagster.engine.rows import Question
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.llm.features import context_window
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.settings import load_settings
from ondine_dagster.spec import Dataset
from ondine_dagster.storage.asset_source import asset_table_file, keep_asset_table
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import rows_of, take_snapshot
from ondine_dagster_tests.small_files import PDF, PNG
from ondine_dagster_tests.spec.declarations import attributes

VARIABLES = ("FIRST_API_KEY", "SECOND_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
KEYS = {name: f"key-{name}" for name in VARIABLES}
ANSWERS = (
    {"label": "good", "score": 2, "note": "a"},
    {"label": "bad", "score": 1, "note": "b"},
    {"label": "mixed", "score": 10},
    {"score": 0},
)
ANSWERS_IN_WORDS = ("good", "It is good.", "bad", '```json\n{"score": 1}\n```', 'So: {"score": 2}.')

EXAMPLE = {"input": "so so", "output": {"label": "good", "score": 1}}
# columns of text that needs to be tidied, and of examples
TEXTS = ("untidy", "similar", "other_similar")
UNTIDY = (
    f' e\u0301\x07t  c and much more,"{json.dumps([EXAMPLE]).replace(chr(34), chr(34) * 2)}",[]'
)

# with personal data
CONTACT = "KD-12 wrote from ana@example.com"


def write_sources(folder: Path) -> None:
    """Write all sources that the changes name."""
    # read in any of the ways that the changes declare, it has the columns `id` and `review`
    odd = ["id,review,z|id|review", "id,review,z|id|review", '1,"é a\\tb",z|1|x']
    (folder / "odd.csv").write_text("\n".join(odd), encoding="utf-8")
    book = Workbook()
    for month in ("May", "June"):
        sheet = book.create_sheet(month)
        sheet.append(["id", "review"])
        sheet.append([1, f"in {month}"])
    book.save(folder / "sheets.xlsx")
    for name in ("kind", "strict"):
        (folder / f"{name}.txt").write_text(f"Be {name}. {{{{ review }}}}")
    for name, shown in {"few": [EXAMPLE], "many": [EXAMPLE, EXAMPLE]}.items():
        (folder / f"{name}.json").write_text(json.dumps(shown))
    for name in ("shop", "other"):
        with closing(sqlite3.connect(folder / f"{name}.sqlite")) as shop:
            shop.execute(f"create table reviews as select 1 as id, 'of {name}' as review")
            shop.execute("create table opinions as select 1 as id, 'mine' as review")
    for name in ("reviews", "opinions"):
        days = [f"2026-01-{1 + n:02d}T20:00+00:00" for n in range(25)]
        lines = [
            f"{n},{name} {n},c{n % 3},{day},{days[n // 2]},{UNTIDY},{CONTACT},{_files_of_row(n)}"
            for n, day in enumerate(days)
        ]
        text = "\n".join(
            [f"id,review,country,day,other_day,{','.join(TEXTS)},contact,{','.join(FILES)}", *lines]
        )
        (folder / f"{name}.csv").write_text(text)
        (folder / f"{name[0]}-2026-01-01.csv").write_text(text)
        _upstream(folder, name)
    (folder / "elsewhere").mkdir()
    for file in ("a.png", "b.png", "a.pdf", "b.pdf"):
        (folder / file).write_bytes((PNG if file.endswith("png") else PDF) + file[:1].encode())


def _upstream(folder: Path, name: str) -> None:
    """Keep the table of a file as the results of a dataset, and as the table of an asset."""
    path, lake = folder / f"{name}.csv", Lake(folder / "data" / "lake")
    dataset = Dataset.model_validate({**attributes(), "name": f"{name}_upstream"})
    snapshot = take_snapshot(lake, dataset, path).snapshot
    for partition in snapshot.partitions:
        rows = rows_of(snapshot, partition.key)
        lake.write(dataset.name, "results", partition.key, rows)
    table = asset_table_file(folder / "data", "reviews", f"warehouse/{name}")
    keep_asset_table(table, rows.drop_columns(["_row_key", "_position"]), name)


# columns that name files: in the first row, and in the others
FILES = {
    "photo": ("a.png", "a.png"),
    "other_photo": ("b.png", "b.png"),
    "seldom": ("a.png", ""),
    "later": ("", "a.png"),
    "link": ("https://images.test/a.png", "https://images.test/a.png"),
    "later_link": ("", "https://images.test/rules"),
    "paper": ("a.pdf", "a.pdf"),
    "other_paper": ("b.pdf", "b.pdf"),
    "seldom_paper": ("a.pdf", ""),
    "paper_link": ("https://images.test/a.pdf", "https://images.test/a.pdf"),
}


def _files_of_row(row: int) -> str:
    return ",".join(first if row == 0 else later for first, later in FILES.values())


def footprint(dataset: Dataset, folder: Path, lake: Lake) -> dict[str, Any]:
    """Return everything that can be seen of a declaration without asking anybody."""
    pipeline = Pipeline(dataset, folder / "defs.yaml", folder)
    snapshot = take_snapshot(lake, dataset, pipeline.source()).snapshot
    for partition in snapshot.partitions:
        write_raw_rows(lake, snapshot, partition.key)
        store = AttachmentStore(folder / "attachments")
        write_prompts(pipeline, lake, partition.key, store=store)
    first = snapshot.partitions[0].key
    prompts = lake.read(dataset.name, "prompts", first).to_pylist()
    prompt = prompts[0]
    raw = lake.read(dataset.name, "raw_rows", first)
    provider = pipeline.provider
    definitions = build_definitions(dataset, declared_in=folder / "defs.yaml", project_root=folder)
    settings = load_settings(folder, KEYS)
    keys = settings.keys_in(dataset.llm.key_source)
    headers = [provider.headers(key) for key in keys or (None,)]
    headers.append(settings.headers_in(dataset.llm.header_variables))
    return {
        "watched": _watched(pipeline),
        "rows": [raw.schema.to_string(), raw.to_pylist(), [p.key for p in snapshot.partitions]],
        "request": [provider.url, headers, *_bodies(provider, prompt["messages"])],
        "identity": _identity(pipeline),
        "ledger": provider.name,
        "answer key": prompt["answer_key"],
        "files": [one["error_message"] for one in prompts],
        "asked": [[one["messages"] is not None for one in prompts], _samples(pipeline, prompt)],
        "money": [
            provider.worst_case(
                1000 + provider.attachment_tokens(prompt["messages"]).most, provider.ceiling
            ),
            provider.cost(Completion(Verdict.OK, "", usage=Usage(1000, 100, 500, 0, 200))),
        ],
        "context": context_window(dataset.llm),
        "packs": _packs(pipeline),
        "fallback": _fallback(pipeline, prompt),
        "columns": tables.output_schema(dataset.output).to_string(),
        "answers": _read(pipeline),
        "asked again": pipeline.why_again
        and [pipeline.why_again(text) for text in ANSWERS_IN_WORDS],
        "specs": _specs(definitions),
        "pilot": _pilot(pipeline),
        "shown": pipeline.scrub(CONTACT),
        "at rest": at_rest(pipeline, raw).to_pylist(),
        "exported": _exported(pipeline, lake, first, folder),
        "observed": [type(one).__name__ for one in observers_of(pipeline)],
        "checks": _checks(pipeline),
        "automation": _automation(definitions),
    }


def _watched(pipeline: Pipeline) -> Any:
    """Return what the watch sensor asks a database, where it asks one."""
    return [] if pipeline.dataset.source.watch is None else pipeline.source_pieces()


def _samples(pipeline: Pipeline, prompt: Mapping[str, Any]) -> list[Any]:
    """Return the questions of a row."""
    question = Question("r", prompt["answer_key"], prompt["messages"])
    return samples_of(pipeline, question, range(pipeline.dataset.samples))


def _identity(pipeline: Pipeline) -> Any:
    """Return how the declared identity is asked for a token, where there is one."""
    own, asked = pipeline.dataset.llm.azure, []

    class Credential:
        def __init__(self, **chosen: str) -> None:
            asked.append(chosen)

        def get_token(self, *scopes: str) -> Any:
            asked.append(scopes)
            return SimpleNamespace(token="t", expires_on=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("azure.identity.ManagedIdentityCredential", Credential)
        if own is not None and (fetch := token_source(pipeline.dataset.llm)) is not None:
            fetch()
    return asked


def _packs(pipeline: Pipeline) -> list[Any]:
    """Return how many rows are asked together, and with which words."""
    plan = pack_plan(pipeline, None)
    if plan is None:
        return []
    return [plan.rows, plan.packing.compose("[", [("abc", "text")])]


def _fallback(pipeline: Pipeline, prompt: Mapping[str, Any]) -> list[Any]:
    """Return what is asked of the fallback, what that costs, and under which key it is kept."""
    provider = pipeline.fallback
    if provider is None:
        return []
    assert pipeline.fallback_llm is not None
    return [
        pipeline.fallback_key(prompt["messages_digest"]),
        provider.url,
        pipeline.fallback_llm.key_source,
        context_window(pipeline.fallback_llm),
        *_bodies(provider, prompt["messages"]),
        provider.worst_case(1000, provider.ceiling),
        provider.cost(Completion(Verdict.OK, "", usage=Usage(1000, 100, 500, 0, 200))),
    ]


def _bodies(provider: Provider, messages: str) -> list[bytes]:
    """Return the request as it is sent at first, and when its answer was cut off."""
    ceilings = (provider.ceiling, provider.raised_ceiling)
    return [provider.body(messages, ceiling) for ceiling in ceilings if ceiling is not None]


def _read(pipeline: Pipeline) -> list[Any]:
    texts = [*map(json.dumps, ANSWERS), *ANSWERS_IN_WORDS]
    read = [pipeline.reader.read(text) for text in texts]
    return [(one.code if isinstance(one, Rejection) else one) for one in read]


def _checks(pipeline: Pipeline) -> list[Any]:
    """Return the verdicts on one partition that is odd in every way, and on a smaller source."""
    dataset = pipeline.dataset
    labels, scores = FieldCounts(), FieldCounts()
    labels.add([*["good"] * 60, *["bad"] * 20, *[None] * 60])
    scores.add([0, 10])
    columns = dict(zip(dataset.output_columns(), (labels, scores), strict=False))
    status = PartitionStatus("p", PartitionState.MISSING, 140, 0, 0, 140)
    facts = PartitionFacts(status, 140, columns, cost=200, asked=100, expected=100)
    drift = Drift({"match": 3, "mismatch": 1}, (("p", "row 1"),), (), "today")
    everything = Facts(pipeline, 1, DatasetStatus(dataset.name, (status,)), (facts,), drift)
    verdicts = [
        *partition_verdicts(everything),
        *field_verdicts(everything),
        not_shrunk(dataset, 85, 100),
    ]
    blocking = [one.name for one in check_specs(pipeline, ["results"]) if one.blocking]
    found = [(one.name, one.passed, one.text, severity_of(dataset.checks, one)) for one in verdicts]
    return [*found, blocking]


def _pilot(pipeline: Pipeline) -> Any:
    """Return what the first rows of a run over 1,000 rows are judged by."""
    plan = pilot_plan(pipeline, Estimate(requests=1000, expected=1000))
    return plan and (plan.rows, plan.max_rejected, plan.max_cost_ratio, plan.expected_cost)


def _exported(pipeline: Pipeline, lake: Lake, partition: str, folder: Path) -> list[Any]:
    """Return what an export leaves behind where there were other answers before."""
    found: list[Any] = []
    for declared in pipeline.dataset.export:
        out = folder / "exported"
        out.mkdir()
        rows = lake.read(pipeline.name, "raw_rows", partition)
        for label in ("before", "now"):
            labels = pa.array([label] * rows.num_rows)
            table = rows.append_column("label", labels).append_column("_outcome", labels)
            lake.write(pipeline.name, "results", partition, table)
            export_to(pipeline, lake, declared, out)
        for file in sorted(out.iterdir()):
            if file.suffix == ".duckdb":
                with duckdb.connect(str(file)) as connection:
                    for (name,) in connection.execute("show tables").fetchall():
                        found.append([name, *connection.table(name).fetchall()])
            else:
                found.append([file.name, file.read_text()])
        shutil.rmtree(out)
        lake.path(pipeline.name, "results", partition).unlink()
    return found


def _specs(definitions: dg.Definitions) -> list[Any]:
    return [
        (spec.key, spec.description, spec.group_name, list(spec.owners), repr(spec.metadata))
        for definition in definitions.assets or ()
        if isinstance(definition, dg.AssetsDefinition)
        for spec in definition.specs
    ]


def _automation(definitions: dg.Definitions) -> list[Any]:
    policies = [
        definition.backfill_policy
        for definition in definitions.assets or ()
        if isinstance(definition, dg.AssetsDefinition)
    ]
    schedules = [
        (one.cron_schedule, one.execution_timezone)
        for one in definitions.schedules or ()
        if isinstance(one, dg.ScheduleDefinition)
    ]
    return [policies, schedules]
