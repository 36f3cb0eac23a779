"""Every setting of a declaration changes what the product does (E-4).

Here those that can be seen without a run, by their `footprint`; the limits are seen in runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from ondine_dagster.engine.fetching import Fetcher, NotFetched
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.spec import Dataset
from ondine_dagster.spec.fields import all_fields
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.assets.footprint import footprint, write_sources
from ondine_dagster_tests.small_files import PDF, PNG
from ondine_dagster_tests.spec.changes import CHANGES

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


@pytest.fixture
def folder(tmp_path: Path, _sources: Path) -> Path:
    """Return a folder with all sources that the changes name."""
    return shutil.copytree(_sources, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def _sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


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
    assert sorted(SHOWS_IN) == SEEN_AT_REST
