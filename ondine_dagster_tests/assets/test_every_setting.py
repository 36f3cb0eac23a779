"""Every setting of a declaration changes what the product does (E-4).

Settings that can be seen without a run are compared by `footprint`: what is sent, what it counts
for, what the assets look like, what is made of rows and answers. The limits are seen in runs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from openpyxl import Workbook

from ondine_dagster.assets import tables
from ondine_dagster.assets.checks import check_specs, severity_of
from ondine_dagster.assets.export import export_to
from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.facts import Facts, PartitionFacts
from ondine_dagster.assets.field_counts import FieldCounts
from ondine_dagster.assets.field_verdicts import field_verdicts
from ondine_dagster.assets.observer import observers_of
from ondine_dagster.assets.packs import pack_plan
from ondine_dagster.assets.pilot import pilot_plan
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.prompts import write_prompts
from ondine_dagster.assets.raw_rows import write_raw_rows
from ondine_dagster.assets.redaction import at_rest
from ondine_dagster.assets.samples import samples_of
from ondine_dagster.assets.source_verdicts import not_shrunk
from ondine_dagster.assets.status import DatasetStatus, PartitionState, PartitionStatus
from ondine_dagster.assets.verdicts import partition_verdicts
from ondine_dagster.assets.verify import Drift
from ondine_dagster.engine.azure_identity import token_source
from ondine_dagster.engine.fetching import Fetcher, NotFetched
from ondine_dagster.engine.rows import Question
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.features import context_window
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.settings import load_settings
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Dataset
from ondine_dagster.spec.fields import all_fields
from ondine_dagster.storage.asset_source import asset_table_file, keep_asset_table
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import rows_of, take_snapshot
from ondine_dagster_tests.small_files import PDF, PNG
from ondine_dagster_tests.spec.changes import CHANGES
from ondine_dagster_tests.spec.declarations import attributes
from ondine_dagster_tests.workbench import REJECTED, RESULTS, MakeBench, numbered

LIMITS = {path for path in CHANGES if path.startswith("limits.")}
ELSEWHERE = ("database", "database_variable", "table", "query", "sql", "dataframe")
WHICH_ROWS = {
    *(f"source.{name}" for name in ELSEWHERE),
    "source.path",
    "source.dataset",
    "source.asset",
    "source.sheet",
    *(path for path in CHANGES if path.startswith("source.csv.")),
    "partitions.time.filename",
    "partitions.time.start",
    "partitions.files",
}
SEEN_AT_REST = sorted(CHANGES.keys() - LIMITS)
ROLES = {field.path: field.role for field in all_fields(Dataset)}

VARIABLES = ("FIRST_API_KEY", "SECOND_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
KEYS = {name: f"key-{name}" for name in VARIABLES}
ANSWERS = (
    {"label": "good", "score": 2, "note": "a"},
    {"label": "bad", "score": 1, "note": "b"},
    {"label": "mixed", "score": 10},
    {"score": 0},
)
ANSWERS_IN_WORDS = ("good", "It is good.", "bad", '```json\n{"score": 1}\n```', 'So: {"score": 2}.')


@pytest.fixture
def folder(tmp_path: Path, _sources: Path) -> Path:
    """Return a folder with all sources that the changes name."""
    return shutil.copytree(_sources, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def _sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
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
    return folder


EXAMPLE = {"input": "so so", "output": {"label": "good", "score": 1}}
# columns of text that needs to be tidied, and of examples
TEXTS = ("untidy", "similar", "other_similar")
UNTIDY = (
    f' e\u0301\x07t  c and much more,"{json.dumps([EXAMPLE]).replace(chr(34), chr(34) * 2)}",[]'
)

# with personal data
CONTACT = "KD-12 wrote from ana@example.com"


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


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find a file at every address; at one of them, the rules under which it is fetched."""

    async def fetch(fetcher: Fetcher, url: str) -> bytes | NotFetched:
        if url.endswith("rules"):
            return NotFetched(ErrorCode.REMOTE_FAILED, repr(fetcher._limits))
        return PDF if url.endswith(".pdf") else PNG

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    monkeypatch.setenv("SHOP_URL", "sqlite:///shop.sqlite")
    monkeypatch.setenv("OTHER_SHOP_URL", "sqlite:///other.sqlite")
    monkeypatch.setenv("OUT", "a.csv")
    monkeypatch.setenv("OTHER_OUT", "b.csv")


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


# Where a change must show: at least in one of these, and so that the reader of this table agrees.
SHOWS_IN: Mapping[str, str] = {
    "name": "specs",
    "description": "specs",
    "owners": "specs",
    "observer": "observed",
    "schedule": "automation",
    "schedule.cron": "automation",
    "schedule.timezone": "automation",
    "run_partitions": "automation",
    "source.path": "rows",
    "source.dataset": "rows",
    "source.asset": "rows",
    **{f"source.{name}": "rows" for name in ELSEWHERE},
    "source.watch": "watched",
    "source.file_column": "rows",
    "source.key": "rows",
    "source.types": "rows",
    **{path: "rows" for path in CHANGES if path.startswith("source.csv.")},
    "source.sheet": "rows",
    "partitions": "rows",
    "partitions.rows": "rows",
    "partitions.time.column": "rows",
    "partitions.time.filename": "rows",
    "partitions.time.every": "rows",
    "partitions.time.timezone": "rows",
    "partitions.time.start": "rows",
    "partitions.files": "rows",
    "partitions.values.column": "rows",
    "partitions.values.listed": "rows",
    "batching.rows_per_request": "packs",
    "batching.format": "packs",
    "when": "asked",
    "samples": "asked",
    "privacy.prompt": "request",
    "privacy.detect": "request",
    "privacy.patterns": "request",
    "privacy.shown": "shown",
    "privacy.at_rest": "at rest",
    "prompt.system": "request",
    "prompt.template": "request",
    "prompt.style": "request",
    "prompt.partials": "request",
    "prompt.system_file": "request",
    "prompt.template_file": "request",
    "prompt.examples": "request",
    "prompt.examples.input": "request",
    "prompt.examples.output": "request",
    "prompt.examples_file": "request",
    "prompt.examples_column": "request",
    **{path: "request" for path in CHANGES if path.startswith("prompt.clean.")},
    "llm": "request",
    "llm.preset": "request",
    **{path: "files" for path in CHANGES if path.startswith("prompt.files.")},
    "prompt.images.column": "request",
    "prompt.images.fetch": "request",
    "prompt.images.required": "files",
    "prompt.images.detail": "request",
    "prompt.documents.column": "request",
    "prompt.documents.fetch": "request",
    "prompt.documents.required": "files",
    "llm.image_tokens": "money",
    "llm.document_tokens": "money",
    "llm.provider": "answer key",
    "llm.key_variable": "request",
    "llm.name": "request",
    "llm.headers": "request",
    "llm.header_variables": "request",
    "llm.provider_name": "ledger",
    "llm.base_url": "request",
    "llm.identity": "answer key",
    "llm.prices.input_per_million_usd": "money",
    "llm.prices.output_per_million_usd": "money",
    "llm.prices.cached_input_per_million_usd": "money",
    "llm.prices.cache_write_per_million_usd": "money",
    "llm.prices.per_request_usd": "money",
    "llm.prices.tiers.above_prompt_tokens": "money",
    "llm.prices.tiers.input_per_million_usd": "money",
    "llm.prices.tiers.output_per_million_usd": "money",
    "llm.prices.tiers.cached_input_per_million_usd": "money",
    "llm.prices.tiers.cache_write_per_million_usd": "money",
    "llm.temperature": "request",
    "llm.top_p": "request",
    "llm.seed": "request",
    "llm.max_tokens": "request",
    "llm.raised_max_tokens": "request",
    "llm.context_window": "context",
    "llm.max_tokens_field": "request",
    "llm.structured": "request",
    "llm.anthropic.cache": "money",
    "llm.anthropic.thinking": "request",
    "llm.anthropic.effort": "request",
    "llm.openai.reasoning_effort": "request",
    "llm.openai.service_tier": "request",
    "llm.openai.organization": "request",
    "llm.openai.project": "request",
    "llm.azure.model": "money",
    "llm.azure.api_version": "request",
    "llm.azure.credential": "request",
    "llm.azure.client_id": "identity",
    "llm.azure.scope": "identity",
    "llm.groq.reasoning_effort": "request",
    "llm.groq.service_tier": "request",
    **{path: "fallback" for path in CHANGES if path.startswith("llm.fallback.")},
    **{path: "request" for path in CHANGES if path.startswith("llm.openrouter.")},
    "output.fields.*.type": "request",
    "output.fields.*.enum": "request",
    "output.fields.*.minimum": "request",
    "output.fields.*.maximum": "request",
    "output.fields.*.description": "request",
    "output.fields.*.required": "request",
    **{path: "request" for path in CHANGES if ".properties.*." in path or ".items." in path},
    "output.model": "request",
    "output.format": "answers",
    "output.pattern": "columns",
    "output.choice.values": "answers",
    "output.choice.anywhere": "answers",
    "output.function": "answers",
    "output.types": "columns",
    "output.repair": "answers",
    "output.reask": "asked again",
    "output.fields.*.synonyms": "answers",
    "output.fields.*.column": "columns",
    "output.fields.*.accept": "answers",
    "output.fields.*.accept.minimum": "answers",
    "output.fields.*.accept.maximum": "answers",
    "output.fields.*.accept.pattern": "answers",
    "output.column": "columns",
    "checks.max_shrink": "checks",
    "checks.max_cost_ratio": "checks",
    "checks.max_drift": "checks",
    "checks.severity": "checks",
    "checks.blocking": "checks",
    "checks.fields.*.min_filled": "checks",
    "checks.fields.*.allowed": "checks",
    "checks.fields.*.minimum": "checks",
    "checks.fields.*.maximum": "checks",
    "checks.fields.*.max_same": "checks",
    **dict.fromkeys([path for path in CHANGES if path.startswith("export.")], "exported"),
    "checks.pilot.max_rejected": "pilot",
    "checks.pilot.max_cost_ratio": "pilot",
}


@pytest.mark.behaviour("E-4")
@pytest.mark.parametrize("path", SEEN_AT_REST)
def test_a_change_of_a_setting_shows_where_it_belongs(path: str, folder: Path) -> None:
    before, after = (
        footprint(dataset, folder, Lake(folder / f"lake{number}"))
        for number, dataset in enumerate(CHANGES[path].datasets())
    )
    different = {face for face in before if before[face] != after[face]}
    assert SHOWS_IN[path] in different, f"{path} changed only {different or 'nothing'}"
    # what is part of the question makes a new question, and nothing else does, except for the
    # source, whose rows are part of it too
    if path not in WHICH_ROWS:
        assert ("answer key" in different) == (ROLES[path] == "question"), different


@pytest.mark.behaviour("E-4")
def test_every_setting_is_compared_or_seen_in_a_run() -> None:
    in_runs = {f"limits.{name}" for name in SEEN_IN_RUNS}
    assert sorted(SHOWS_IN) == SEEN_AT_REST
    assert in_runs == LIMITS


# limits: what a run does differently


Look = Callable[[MakeBench, Simulator, dict[str, Any]], Any]


def _peak(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many requests were in flight at most: replies take long enough to meet."""
    simulator.settings = replace(simulator.settings, latency_ms=40)
    make_bench(numbered(8), limits=limits).run_missing()
    return simulator.bill.totals.max_in_flight


def _requests_for_an_error(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    bench = make_bench([{"id": "a", "text": "[[fault=500]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.requests


def _requests_of_unknown_outcome(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    bench = make_bench([{"id": "a", "text": "[[fault=reset_after]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.charged


def _patience(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> str:
    limits = {"max_attempts": 1, **limits}
    bench = make_bench([{"id": "a", "text": "[[fault=stall]]"}], limits=limits)
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    (row,) = bench.rows(REJECTED)
    return str(row["_error_message"])


def _unknown_after_a_stop(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    """Interrupt a run whose replies come when it has ended, or 3 s after the interrupt."""
    simulator.hold()
    bench = make_bench(numbered(4), limits=limits)
    bench.snapshot()
    ended = threading.Event()

    def interrupt() -> None:
        if simulator.bill.wait_for(lambda totals: totals.charged == 4):
            os.kill(os.getpid(), signal.SIGINT)
        ended.wait(3)
        simulator.release()

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(DagsterExecutionInterruptedError):
        bench.run()
    ended.set()
    waiting.join()
    return len(bench.attempts(where="state = 'unknown'"))


def _answers_of_four(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many of four rows were answered in two runs; the others wait."""
    bench = make_bench(numbered(4), limits=limits)
    bench.snapshot()
    for _ in range(2):
        bench.run(raise_on_error=False)
    return simulator.bill.totals.charged


def _answers_of_no_use(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how many rejected answers are paid before the run stops."""
    fields = {"mark": {"type": "string", "accept": ["fine"]}}
    bench = make_bench(numbered(12), limits=limits, output={"fields": fields})
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    return simulator.bill.totals.charged


def _answers_within_a_budget(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> int:
    (budget,) = limits.values()
    return _answers_of_four(make_bench, simulator, {"budgets": [{"per": "total", **budget}]})


def _warnings(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how often a run warned of a budget of which it used a half."""
    budgets = [{"requests": 8, "per": "total"}]
    bench = make_bench(numbered(4), limits={"budgets": budgets, **limits})
    bench.snapshot()
    entries = bench.instance.all_logs(bench.run().run_id)
    return sum(entry.level == logging.WARNING for entry in entries)


def _sent_apart(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> bool:
    """Return whether the second of two requests waited for half a second or more.

    Replies take longer: the first one tells that fewer tokens were used than it was feared.
    """
    simulator.settings = replace(simulator.settings, latency_ms=800)
    bench = make_bench(numbered(2), limits=limits)
    bench.run_missing()
    ((apart_ms,),) = bench.attempts("max(t_open) - min(t_open)")
    return bool(apart_ms >= 500)


def _survives_an_outage(
    make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]
) -> bool:
    """Return whether a run goes on after an outage that is over 2 s after the tenth failure."""
    simulator.outage()
    bench = make_bench(numbered(12), limits={"max_attempts": 20, **limits})
    bench.snapshot()

    def recover() -> None:
        if simulator.bill.wait_for(lambda totals: totals.requests >= 10):
            time.sleep(2)
        simulator.recover()

    recovering = threading.Thread(target=recover)
    recovering.start()
    success = bench.run(raise_on_error=False).success
    recovering.join()
    return success


def _looked_up(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> int:
    """Return how often a run looked models up."""
    make_bench(numbered(2), limits=limits).run_missing()
    return simulator.bill.totals.looked_up


def _is_red(make_bench: MakeBench, simulator: Simulator, limits: dict[str, Any]) -> bool:
    """Return whether a partition fails of whose ten rows two are rejected."""
    rows = numbered(8) + numbered(2, "[[fault=refusal]] {n}", first=8)
    bench = make_bench(rows, limits=limits)
    bench.snapshot()
    return not bench.run(raise_on_error=False).success


SEEN_IN_RUNS: Mapping[str, tuple[Look, Any, Any, tuple[Any, Any]]] = {
    "budget_usd": (_answers_of_four, 0, 1, (0, 4)),
    "budgets.usd": (_answers_within_a_budget, {"usd": 0}, {"usd": 1}, (0, 4)),
    "budgets.requests": (_answers_within_a_budget, {"requests": 1}, {"requests": 3}, (1, 3)),
    "budgets.tokens": (_answers_within_a_budget, {"tokens": 0}, {"tokens": 10**6}, (0, 4)),
    "budgets.per": (
        _answers_within_a_budget,
        {"requests": 2, "per": "run"},
        {"requests": 2, "per": "total"},
        (4, 2),
    ),
    "warn_at_percent": (_warnings, [50], [60], (1, 0)),
    "requests_per_minute": (_sent_apart, None, 60, (False, True)),
    "tokens_per_minute": (_sent_apart, None, 10_000, (False, True)),
    "requests_per_day": (_answers_of_four, 1, 3, (1, 3)),
    "tokens_per_day": (_answers_of_four, 1, 10**6, (0, 4)),
    "max_outage_seconds": (_survives_an_outage, 0, 600, (False, True)),
    "concurrency": (_peak, 1, 2, (1, 2)),
    "max_attempts": (_requests_for_an_error, 1, 2, (1, 2)),
    "max_rejected": (_is_red, 0.1, 0.2, (True, False)),
    "max_unknown": (_requests_of_unknown_outcome, 0, 1, (1, 2)),
    "on_unknown": (_requests_of_unknown_outcome, "reask", "hold", (3, 1)),
    "timeout_seconds": (
        _patience,
        0.2,
        0.3,
        ("no complete reply within 0.2 s", "no complete reply within 0.3 s"),
    ),
    "drain_seconds": (_unknown_after_a_stop, 0, 30, (4, 0)),
    "preflight": (_looked_up, None, True, (0, 1)),
    "pilot_rows": (_answers_of_no_use, 2, 3, (2, 3)),
}


@pytest.mark.slow
@pytest.mark.behaviour("E-4")
@pytest.mark.parametrize("name", SEEN_IN_RUNS)
@pytest.mark.parametrize("which", [0, 1], ids=["before", "after"])
def test_a_limit_is_obeyed(
    name: str, which: int, make_bench: MakeBench, simulator: Simulator
) -> None:
    look, *values, expected = SEEN_IN_RUNS[name]
    assert look(make_bench, simulator, {name: values[which]}) == expected[which]


@pytest.mark.behaviour("A-13")
def test_the_concurrency_is_shared_by_all_partitions_reached_and_never_passed(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    simulator.settings = replace(simulator.settings, latency_ms=30)
    bench = make_bench(numbered(60), partitions={"rows": 5}, limits={"concurrency": 12})
    bench.run_missing()
    assert simulator.bill.totals.max_in_flight == 12
    assert simulator.bill.totals.connections <= 12
    assert bench.table(RESULTS).num_rows == 60
