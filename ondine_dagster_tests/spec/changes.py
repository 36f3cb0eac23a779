"""One change per setting of a declaration, for tests that each setting does something (E-4).

`CHANGES` names every path of `declared_fields(Dataset)` exactly once; test_fields.py sees to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ondine_dagster.spec import Dataset
from ondine_dagster_tests.spec.declarations import attributes, changed


@dataclass(frozen=True, slots=True)
class Change:
    """Two values of one setting, both right, in a declaration that is otherwise the same.

    `at` is where the setting stands, with a field's real name for `*`.
    """

    at: str
    before: Any
    after: Any
    start: Mapping[str, Any] | None = None

    def datasets(self) -> tuple[Dataset, Dataset]:
        """Return the declaration before and after the change."""
        start = dict(self.start) if self.start else attributes()
        before = changed(self.at, self.before, start)
        return Dataset.model_validate(before), Dataset.model_validate(
            changed(self.at, self.after, start)
        )


_OWN = "ondine_dagster_tests.own_answers"
_SCORE = "output.fields.score"
_LABEL = "output.fields.label"
_NOTE = "output.fields.note"
_LABEL_CHECK, _SCORE_CHECK = "checks.fields.label", "checks.fields.score"
_PLAIN_TEXT = attributes(output={})
_PACKS = attributes(batching={"rows_per_request": 25})
_TIER = "llm.prices.tiers"


def _text(at: str, before: Any, after: Any, **output: Any) -> Change:
    """Change how a plain text answer is read."""
    return Change(f"output.{at}", before, after, attributes(output=output))


def _nested(where: str, key: str, before: Any, after: Any) -> Change:
    """Change what an object, or each item of an array, is asked to hold."""
    kind = {"description": "string", "type": "string", "enum": "string"}.get(key, "integer")
    shapes = [{"type": kind, key: value} for value in (before, after)]
    if where == "items":
        return Change(_NOTE, *({"type": "array", "items": shape} for shape in shapes))
    declared = ({"type": "object", "properties": {"part": shape}} for shape in shapes)
    return Change(_NOTE, *declared)


_NESTED = {
    "type": ("string", "boolean"),
    "enum": (["a"], ["a", "b"]),
    "minimum": (0, 1),
    "maximum": (10, 5),
    "description": ("0 to 10", "Stars."),
    "required": (True, False),
}


def _tier(key: str, before: Any, after: Any) -> Change:
    """Change a key of a tier that reaches from 500 prompt tokens up."""
    tier = {"above_prompt_tokens": 500, "input_per_million_usd": 3, "output_per_million_usd": 30}
    return Change(_TIER, [{**tier, key: before}], [{**tier, key: after}])


def _budget(unit: str, before: Any, after: Any) -> Change:
    """Change the amount of a budget per day."""
    return Change("limits.budgets", *([{unit: amount, "per": "day"}] for amount in (before, after)))


def _cut(at: str, before: Any, after: Any) -> Change:
    """Change a setting of partitions by time or by values; of time unless `at` says otherwise."""
    kind = at.partition(".")[0]
    start = {
        "time": {"column": "day", "every": "day", "start": "2026-01-01"},
        "values": {"column": "country"},
    }[kind]
    return Change(f"partitions.{at}", before, after, attributes(partitions={kind: start}))


def _csv(key: str, before: Any, after: Any) -> Change:
    """Change how a file is read that is right either way."""
    start = attributes(source={"path": "odd.csv", "key": "id"})
    return Change(f"source.csv.{key}", before, after, start)


_SELECT = "select 2 as id, 'b' as review"
_NO_FILE = attributes(source={"key": "id"})


def _frame(review: str) -> Callable[[], pa.Table]:
    return lambda: pa.table({"id": [1], "review": [review]})


def _database(key: str, before: Any, after: Any) -> Change:
    """Change what is read of a database."""
    source = {"key": "id", "database": "sqlite:///shop.sqlite", "table": "reviews"}
    if key == "query":
        del source["table"]
    if key == "database_variable":
        del source["database"]
    return Change(f"source.{key}", before, after, attributes(source=source))


def _export(key: str, before: Any, after: Any, **more: Any) -> Change:
    """Change where results go, or how."""
    sections = ({**more, key: value} for value in (before, after))
    return Change("export", *({k: v for k, v in one.items() if v is not None} for one in sections))


def _files(at: str, before: Any, after: Any) -> Change:
    """Change which files are read; their names tell the day."""
    partitions: dict[str, Any] = {}
    if at == "time.filename":
        partitions = {"time": {"every": "day", "start": "2026-01-01"}}
    start = attributes(source={"key": "id"}, partitions=partitions)
    return Change(f"partitions.{at}", before, after, start)


def _fallback(key: str, before: Any, after: Any) -> Change:
    """Change a setting of a fallback to a larger model."""
    prices = {"input_per_million_usd": 3, "output_per_million_usd": 30}
    fallback = {"name": "larger-model", "prices": prices}
    return Change("llm.fallback", {**fallback, key: before}, {**fallback, key: after})


def _fallback_price(key: str, before: Any, after: Any) -> Change:
    prices = {"input_per_million_usd": 3, "output_per_million_usd": 30}
    return _fallback("prices", {**prices, key: before}, {**prices, key: after})


def _fallback_tier(key: str, before: Any, after: Any) -> Change:
    tier = {"above_prompt_tokens": 500, "input_per_million_usd": 6, "output_per_million_usd": 60}
    return _fallback_price("tiers", [{**tier, key: before}], [{**tier, key: after}])


def _of_provider(path: str, before: Any, after: Any) -> Change:
    """Change a setting of `llm` that only the provider has whose section it stands in."""
    start = attributes()
    start["llm"]["provider"] = path.partition(".")[0]
    return Change(f"llm.{path}", before, after, start)


_IDENTITY = {"credential": "managed_identity"}


def _azure(settings: Mapping[str, Any] | None = None, without_prices: bool = False) -> Any:
    """Return a declaration that asks a deployment of Azure OpenAI."""
    start = attributes()
    start["llm"] |= {"provider": "azure", "azure": dict(settings or {})}
    if without_prices:
        del start["llm"]["prices"]
    return start


_FALLBACK = "llm.fallback"
_OPENROUTER = "llm.openrouter"


def _openrouter(key: str, before: Any, after: Any) -> Change:
    """Change a setting of OpenRouter. The prompt has a system message, the output a schema."""
    llm = {"provider": "openrouter", "name": "openai/gpt-4o-mini"}
    return Change(f"{_OPENROUTER}.{key}", before, after, attributes(llm=llm))


def _highest_price(key: str, before: Any, after: Any) -> Change:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 4}
    return _openrouter("max_price", {**prices, key: before}, {**prices, key: after})


def _attached(kind: str, before: dict[str, Any], after: dict[str, Any]) -> Change:
    """Change the only image, or the only document, of each row."""
    start = attributes(prompt={"template": "{{ review }}"})
    start["llm"] = {**start["llm"], "document_tokens": 1000}
    return Change(f"prompt.{kind}", [before], [after], start)


def _prompt(at: str, before: Any, after: Any, **start: Any) -> Change:
    """Change a part of a prompt that asks about `untidy` text."""
    prompt = {"template": "{{ untidy }}", **start}
    return Change(f"prompt.{at}", before, after, attributes(prompt=prompt))


def _clean(key: str, before: Any, after: Any, **start: Any) -> Change:
    return _prompt("clean", {"untidy": {key: before, **start}}, {"untidy": {key: after, **start}})


def _example(key: str, before: Any, after: Any) -> Change:
    example = {"input": {"untidy": "so so"}, "output": {"label": "good", "score": 1}}
    return _prompt("examples", [{**example, key: before}], [{**example, key: after}])


def _file_rule(key: str, before: Any, after: Any) -> Change:
    """Change a rule for files; the first row has none."""
    images = [{"column": "later", "required": False}, {"column": "later_link", "required": False}]
    start = attributes(prompt={"template": "{{ review }}", "images": images})
    return Change(f"prompt.files.{key}", before, after, start)


def _tokens(kind: str, column: str) -> Change:
    """Change what an image, or a document, is billed as at most."""
    start = attributes(prompt={"template": "{{ review }}", f"{kind}s": [{"column": column}]})
    return Change(f"llm.{kind}_tokens", 1000, 2000, start)


def _privacy(key: str, before: Any, after: Any, **start: Any) -> Change:
    """Change what is taken out of a prompt about `contact`."""
    prompt = {"template": "{{ contact }}"}
    return Change(f"privacy.{key}", before, after, attributes(prompt=prompt, privacy=start))


CHANGES: dict[str, Change] = {
    "name": Change("name", "reviews", "opinions"),
    "description": Change("description", "What people think.", "What they say."),
    "owners": Change("owners", ["team:a"], ["team:b"]),
    "schedule": Change("schedule", "0 6 * * *", "0 7 * * *"),
    "schedule.cron": Change("schedule", {"cron": "@daily"}, {"cron": "@hourly"}),
    "schedule.timezone": Change(
        "schedule", *({"cron": "@daily", "timezone": zone} for zone in ("UTC", "Europe/Berlin"))
    ),
    "run_partitions": Change("run_partitions", 100, 24),
    "source.path": Change("source.path", "reviews.csv", "opinions.csv"),
    "source.dataset": Change(
        "source", {"dataset": "reviews_upstream"}, {"dataset": "opinions_upstream"}
    ),
    "source.asset": Change(
        "source", {"asset": "warehouse/reviews"}, {"asset": "warehouse/opinions"}
    ),
    "source.database": _database("database", "sqlite:///shop.sqlite", "sqlite:///other.sqlite"),
    "source.database_variable": _database("database_variable", "SHOP_URL", "OTHER_SHOP_URL"),
    "source.table": _database("table", "reviews", "opinions"),
    "source.query": _database("query", "select 1 as id, 'a' as review", _SELECT),
    "source.sql": Change("source.sql", "select 1 as id, 'a' as review", _SELECT, _NO_FILE),
    "source.dataframe": Change("source.dataframe", _frame("a"), _frame("b"), _NO_FILE),
    "source.file_column": Change("source.file_column", "file", "place"),
    "source.watch": _database("watch", "select 1", "select 2"),
    "source.key": Change("source.key", "id", ["id", "country"]),
    "source.csv.delimiter": _csv("delimiter", ",", "|"),
    "source.csv.quote": _csv("quote", '"', "'"),
    "source.csv.escape": _csv("escape", None, "\\"),
    "source.csv.encoding": _csv("encoding", "utf-8", "latin-1"),
    "source.csv.skip_lines": _csv("skip_lines", 0, 1),
    "source.sheet": Change(
        "source.sheet", "May", "June", attributes(source={"path": "sheets.xlsx", "key": "id"})
    ),
    "source.types": Change("source.types", {}, {"id": "integer"}),
    "partitions": Change("partitions", {"rows": 10}, "none"),
    "partitions.rows": Change("partitions.rows", 10, 20),
    "partitions.time.column": _cut("time.column", "day", "other_day"),
    "partitions.time.filename": _files("time.filename", "r-%Y-%m-%d.csv", "o-%Y-%m-%d.csv"),
    "partitions.time.every": _cut("time.every", "day", "month"),
    "partitions.time.timezone": _cut("time.timezone", "UTC", "Asia/Kolkata"),
    "partitions.time.start": _cut("time.start", "2026-01-01", "2026-01-02"),
    "partitions.files": _files("files", "r-*.csv", "o-*.csv"),
    "partitions.values.column": _cut("values.column", "country", "id"),
    "partitions.values.listed": _cut("values.listed", ["c0"], ["c0", "c1"]),
    "batching.rows_per_request": Change("batching.rows_per_request", 25, "auto"),
    "batching.format": Change("batching.format", "json", "csv", _PACKS),
    "observer": Change("observer", f"{_OWN}:Watcher", f"{_OWN}:OtherWatcher"),
    "when": Change("when", "id != '3'", "id != '4'"),
    "samples": Change("samples", 1, 3),
    "privacy.prompt": _privacy("prompt", "placeholders", "remove"),
    "privacy.detect": _privacy("detect", ["phone"], ["email"], prompt="remove"),
    "privacy.patterns": _privacy("patterns", {}, {"customer": "KD-[0-9]+"}, prompt="remove"),
    "privacy.shown": _privacy("shown", True, False),
    "privacy.at_rest": _privacy("at_rest", False, True, prompt="remove"),
    "prompt.system": Change("prompt.system", "Be brief.", "Be kind."),
    "prompt.template": Change("prompt.template", "{{ review }}", "Review: {{ review }}"),
    "prompt.style": _prompt("style", "jinja", "plain", template="{untidy}"),
    "prompt.partials": _prompt(
        "partials",
        *({"rules": f"{name}.txt"} for name in ("kind", "strict")),
        template="{% include 'rules' %} {{ untidy }}",
    ),
    "prompt.system_file": _prompt("system_file", "kind.txt", "strict.txt"),
    "prompt.template_file": Change(
        "prompt", {"template_file": "kind.txt"}, {"template_file": "strict.txt"}
    ),
    "prompt.examples": _prompt(
        "examples", [], [{"input": "so so", "output": {"label": "good", "score": 1}}]
    ),
    "prompt.examples.input": _example("input", "so so", {"untidy": "awful"}),
    "prompt.examples.output": _example(
        "output", {"label": "bad", "score": 1}, {"label": "good", "score": 2}
    ),
    "prompt.examples_file": _prompt("examples_file", "few.json", "many.json"),
    "prompt.examples_column": _prompt("examples_column", "similar", "other_similar"),
    "prompt.clean.*.unicode": _clean("unicode", None, "nfc", white_space="trim"),
    "prompt.clean.*.control_characters": _clean("control_characters", "remove", "space"),
    "prompt.clean.*.white_space": _clean("white_space", "trim", "collapse"),
    "prompt.clean.*.truncate_tokens": _clean("truncate_tokens", 2, 3),
    "prompt.clean.*.marker": _clean("marker", "~", " [cut]", truncate_tokens=3),
    "llm": Change("llm", "ollama/llama3.1:8b", "ollama/llama3.3:70b"),
    "llm.preset": Change("llm", {"preset": "ollama-llama-8b"}, {"preset": "ollama-llama-70b"}),
    "llm.provider": Change("llm.provider", "openai_compatible", "vllm"),
    "prompt.images.column": _attached("images", {"column": "photo"}, {"column": "other_photo"}),
    "prompt.images.fetch": _attached(
        "images", {"column": "link"}, {"column": "link", "fetch": False}
    ),
    "prompt.images.required": _attached(
        "images", {"column": "seldom"}, {"column": "seldom", "required": False}
    ),
    "prompt.images.detail": _attached(
        "images", {"column": "photo", "detail": "low"}, {"column": "photo", "detail": "high"}
    ),
    "prompt.documents.column": _attached(
        "documents", {"column": "paper"}, {"column": "other_paper"}
    ),
    "prompt.documents.fetch": _attached(
        "documents", {"column": "paper_link"}, {"column": "paper_link", "fetch": False}
    ),
    "prompt.documents.required": _attached(
        "documents", {"column": "seldom_paper"}, {"column": "seldom_paper", "required": False}
    ),
    "prompt.files.folder": _file_rule("folder", ".", "elsewhere"),
    "prompt.files.max_bytes": _file_rule("max_bytes", 10, 1000),
    "prompt.files.timeout_seconds": _file_rule("timeout_seconds", 1, 2),
    "prompt.files.trusted_hosts": _file_rule("trusted_hosts", [], ["images.test"]),
    "llm.image_tokens": _tokens("image", "photo"),
    "llm.document_tokens": _tokens("document", "paper"),
    "llm.name": Change("llm.name", "my-model", "your-model"),
    "llm.base_url": Change("llm.base_url", "http://localhost:1/v1", "http://localhost:2/v1"),
    "llm.key_variable": Change("llm.key_variable", "FIRST_API_KEY", "SECOND_API_KEY"),
    "llm.headers": Change("llm.headers", {"X-Team": "a"}, {"X-Team": "b"}),
    "llm.header_variables": Change(
        "llm.header_variables", {"X-Gateway": "FIRST_API_KEY"}, {"X-Gateway": "SECOND_API_KEY"}
    ),
    "llm.provider_name": Change("llm.provider_name", "our gateway", "their gateway"),
    "llm.identity": Change("llm.identity", "llama", "mistral"),
    "llm.prices.input_per_million_usd": Change("llm.prices.input_per_million_usd", 1, 2),
    "llm.prices.output_per_million_usd": Change("llm.prices.output_per_million_usd", 1, 2),
    "llm.prices.cached_input_per_million_usd": Change(
        "llm.prices.cached_input_per_million_usd", 0.01, 0.02
    ),
    "llm.prices.cache_write_per_million_usd": Change(
        "llm.prices.cache_write_per_million_usd", 2, 3
    ),
    "llm.prices.per_request_usd": Change("llm.prices.per_request_usd", 0, 0.001),
    f"{_TIER}.above_prompt_tokens": _tier("above_prompt_tokens", 500, 5000),
    f"{_TIER}.input_per_million_usd": _tier("input_per_million_usd", 3, 4),
    f"{_TIER}.output_per_million_usd": _tier("output_per_million_usd", 30, 40),
    f"{_TIER}.cached_input_per_million_usd": _tier("cached_input_per_million_usd", 1, 2),
    f"{_TIER}.cache_write_per_million_usd": _tier("cache_write_per_million_usd", 1, 2),
    "llm.temperature": Change("llm.temperature", 0, 1.5),
    "llm.top_p": Change("llm.top_p", 0.5, 0.9),
    "llm.seed": Change("llm.seed", 1, 2),
    "llm.max_tokens": Change("llm.max_tokens", 16, 32),
    "llm.raised_max_tokens": Change("llm.raised_max_tokens", 2048, 4096),
    "llm.context_window": Change("llm.context_window", 4096, 8192),
    "llm.max_tokens_field": Change("llm.max_tokens_field", "max_tokens", "max_completion_tokens"),
    f"{_FALLBACK}.preset": Change(
        "llm.fallback", {"preset": "ollama-llama-8b"}, {"preset": "ollama-llama-70b"}
    ),
    f"{_FALLBACK}.provider": _fallback("provider", "vllm", "ollama"),
    f"{_FALLBACK}.key_variable": _fallback("key_variable", "FIRST_API_KEY", "SECOND_API_KEY"),
    "llm.structured": Change("llm.structured", "tools", "prompt"),
    "llm.anthropic.cache": _of_provider("anthropic.cache", "5m", "1h"),
    "llm.anthropic.thinking": _of_provider("anthropic.thinking", "adaptive", "disabled"),
    "llm.anthropic.effort": _of_provider("anthropic.effort", "low", "high"),
    "llm.openai.reasoning_effort": _of_provider("openai.reasoning_effort", "low", "high"),
    "llm.openai.service_tier": _of_provider("openai.service_tier", "flex", "priority"),
    "llm.openai.organization": _of_provider("openai.organization", "org-a", "org-b"),
    "llm.openai.project": _of_provider("openai.project", "proj-a", "proj-b"),
    "llm.azure.model": Change(
        "llm.azure.model", "gpt-4o", "gpt-4o-mini", _azure(without_prices=True)
    ),
    "llm.azure.api_version": Change("llm.azure.api_version", "2024-10-21", "2024-06-01", _azure()),
    "llm.azure.credential": Change("llm.azure.credential", "key", "token", _azure()),
    "llm.azure.client_id": Change("llm.azure.client_id", "id-1", "id-2", _azure(_IDENTITY)),
    "llm.azure.scope": Change("llm.azure.scope", "https://a/x", "https://b/x", _azure(_IDENTITY)),
    "llm.groq.reasoning_effort": _of_provider("groq.reasoning_effort", "low", "high"),
    "llm.groq.service_tier": _of_provider("groq.service_tier", "on_demand", "flex"),
    f"{_FALLBACK}.name": _fallback("name", "a-model", "b-model"),
    f"{_FALLBACK}.base_url": _fallback(
        "base_url", "http://localhost:3/v1", "http://localhost:4/v1"
    ),
    f"{_FALLBACK}.identity": _fallback("identity", "llama", "mistral"),
    f"{_FALLBACK}.temperature": _fallback("temperature", 0, 1.5),
    f"{_FALLBACK}.top_p": _fallback("top_p", 0.5, 0.9),
    f"{_FALLBACK}.seed": _fallback("seed", 1, 2),
    f"{_FALLBACK}.max_tokens": _fallback("max_tokens", 16, 32),
    f"{_FALLBACK}.raised_max_tokens": _fallback("raised_max_tokens", 2048, 4096),
    f"{_FALLBACK}.context_window": _fallback("context_window", 4096, 8192),
    f"{_FALLBACK}.max_tokens_field": _fallback(
        "max_tokens_field", "max_tokens", "max_completion_tokens"
    ),
    f"{_FALLBACK}.structured": _fallback("structured", "tools", "prompt"),
    **{
        f"{_FALLBACK}.prices.{name}": _fallback_price(name, 1, 2)
        for name in (
            "input_per_million_usd",
            "output_per_million_usd",
            "cached_input_per_million_usd",
            "cache_write_per_million_usd",
            "per_request_usd",
        )
    },
    f"{_FALLBACK}.prices.tiers.above_prompt_tokens": _fallback_tier(
        "above_prompt_tokens", 500, 5000
    ),
    **{
        f"{_FALLBACK}.prices.tiers.{name}": _fallback_tier(name, 4, 5)
        for name in (
            "input_per_million_usd",
            "output_per_million_usd",
            "cached_input_per_million_usd",
            "cache_write_per_million_usd",
        )
    },
    f"{_OPENROUTER}.models": _openrouter("models", None, ["openai/gpt-4.1-mini"]),
    f"{_OPENROUTER}.reasoning_effort": _openrouter("reasoning_effort", "low", "high"),
    f"{_OPENROUTER}.order": _openrouter("order", ["azure"], ["openai"]),
    f"{_OPENROUTER}.only": _openrouter("only", ["azure"], ["openai"]),
    f"{_OPENROUTER}.ignore": _openrouter("ignore", ["azure"], ["openai"]),
    f"{_OPENROUTER}.allow_fallbacks": _openrouter("allow_fallbacks", None, False),
    f"{_OPENROUTER}.require_parameters": _openrouter("require_parameters", None, False),
    f"{_OPENROUTER}.data_collection": _openrouter("data_collection", "allow", "deny"),
    f"{_OPENROUTER}.zdr": _openrouter("zdr", None, True),
    f"{_OPENROUTER}.quantizations": _openrouter("quantizations", ["fp8"], ["bf16"]),
    f"{_OPENROUTER}.sort": _openrouter("sort", "price", "latency"),
    f"{_OPENROUTER}.preferred_min_throughput": _openrouter("preferred_min_throughput", 10, 20),
    f"{_OPENROUTER}.preferred_max_latency": _openrouter("preferred_max_latency", 1, 2),
    f"{_OPENROUTER}.max_price.input_per_million_usd": _highest_price("input_per_million_usd", 1, 2),
    f"{_OPENROUTER}.max_price.output_per_million_usd": _highest_price(
        "output_per_million_usd", 4, 5
    ),
    f"{_OPENROUTER}.max_price.per_request_usd": _highest_price("per_request_usd", 0, 0.001),
    f"{_OPENROUTER}.prompt_cache": _openrouter("prompt_cache", "5m", "1h"),
    f"{_OPENROUTER}.response_cache_seconds": _openrouter("response_cache_seconds", 60, 600),
    f"{_OPENROUTER}.user": _openrouter("user", "etl", "people"),
    f"{_OPENROUTER}.session_id": _openrouter("session_id", "labels", "topics"),
    f"{_OPENROUTER}.referer": _openrouter("referer", "https://a.example", "https://b.example"),
    f"{_OPENROUTER}.title": _openrouter("title", "Labels", "Topics"),
    f"{_OPENROUTER}.categories": _openrouter("categories", ["cli-agent"], ["cloud-agent"]),
    "output.fields.*.type": Change(f"{_NOTE}.type", "string", "boolean"),
    "output.fields.*.enum": Change(f"{_LABEL}.enum", ["good", "bad"], ["good", "bad", "mixed"]),
    "output.fields.*.minimum": Change(f"{_SCORE}.minimum", 0, 1),
    "output.fields.*.maximum": Change(f"{_SCORE}.maximum", 10, 5),
    "output.fields.*.description": Change(f"{_SCORE}.description", "0 to 10", "Stars."),
    "output.fields.*.required": Change(f"{_LABEL}.required", True, False),
    **{
        f"output.fields.*.{place}.{key}": _nested(place.partition(".")[0], key, *values)
        for place in ("properties.*", "items")
        for key, values in _NESTED.items()
    },
    "output.fields.*.synonyms": Change(
        f"{_NOTE}.synonyms", {"c": ["other"]}, {"c": ["other", "a"]}
    ),
    "output.model": _text("model", f"{_OWN}:Labelled", f"{_OWN}:Rated"),
    "output.format": _text("format", "text", "json"),
    "output.pattern": _text("pattern", "(?P<first>[a-z]+)", "(?P<word>[a-z]+)"),
    "output.choice.values": _text("choice.values", ["good"], ["good", "bad"]),
    "output.choice.anywhere": _text("choice.anywhere", False, True, choice={"values": ["good"]}),
    "output.function": _text("function", f"{_OWN}:first_word", f"{_OWN}:last_word"),
    "output.types": _text("types", {"score": "integer"}, {"score": "number"}, format="json"),
    "output.repair": _text("repair", ["fences"], ["prose"], format="json"),
    "output.reask": Change("output.reask", 0, 1),
    "output.fields.*.column": Change(f"{_SCORE}.column", "score", "stars"),
    "output.fields.*.accept": Change(f"{_LABEL}.accept", ["good"], ["bad"]),
    "output.fields.*.accept.minimum": Change(f"{_SCORE}.accept", {"minimum": 1}, {"minimum": 2}),
    "output.fields.*.accept.maximum": Change(f"{_SCORE}.accept", {"maximum": 1}, {"maximum": 2}),
    "output.fields.*.accept.pattern": Change(f"{_NOTE}.accept", {"pattern": "a"}, {"pattern": "b"}),
    "output.column": Change("output.column", "summary", "answer", _PLAIN_TEXT),
    "limits.budget_usd": Change("limits.budget_usd", 1, 2),
    "limits.budgets.usd": _budget("usd", 1, 2),
    "limits.budgets.requests": _budget("requests", 1, 2),
    "limits.budgets.tokens": _budget("tokens", 1, 2),
    "limits.budgets.per": Change(
        "limits.budgets", [{"usd": 1, "per": "run"}], [{"usd": 1, "per": "total"}]
    ),
    "limits.warn_at_percent": Change("limits.warn_at_percent", [50], [60]),
    "limits.requests_per_minute": Change("limits.requests_per_minute", 1, 2),
    "limits.tokens_per_minute": Change("limits.tokens_per_minute", 1, 2),
    "limits.requests_per_day": Change("limits.requests_per_day", 1, 2),
    "limits.tokens_per_day": Change("limits.tokens_per_day", 1, 2),
    "limits.max_outage_seconds": Change("limits.max_outage_seconds", 1, 2),
    "limits.concurrency": Change("limits.concurrency", 1, 2),
    "limits.max_attempts": Change("limits.max_attempts", 1, 2),
    "limits.max_rejected": Change("limits.max_rejected", 0, 1),
    "limits.max_unknown": Change("limits.max_unknown", 0, 1),
    "limits.on_unknown": Change("limits.on_unknown", "reask", "hold"),
    "limits.drain_seconds": Change("limits.drain_seconds", 1, 2),
    "limits.timeout_seconds": Change("limits.timeout_seconds", 1, 2),
    "limits.preflight": Change("limits.preflight", False, True),
    "limits.pilot_rows": Change("limits.pilot_rows", 1, 2),
    "checks.max_shrink": Change("checks.max_shrink", 0.1, 0.2),
    "checks.max_cost_ratio": Change("checks.max_cost_ratio", 1, 3),
    "checks.max_drift": Change("checks.max_drift", 0, 0.5),
    "export.to": _export("to", "a.csv", "b.csv"),
    "export.to_variable": _export("to_variable", "OUT", "OTHER_OUT"),
    "export.table": _export("table", "labels", "others", to="a.duckdb"),
    "export.mode": _export("mode", "update", "append", to="duckdb:///a.duckdb"),
    "export.lineage": _export("lineage", False, True, to="a.csv"),
    "checks.severity": Change("checks.severity", {}, {"labelled": "error"}),
    "checks.blocking": Change("checks.blocking", [], ["fields"]),
    "checks.fields.*.min_filled": Change(f"{_LABEL_CHECK}.min_filled", 0.1, 0.9),
    "checks.fields.*.allowed": Change(f"{_LABEL_CHECK}.allowed", ["good"], ["good", "bad"]),
    "checks.fields.*.minimum": Change(f"{_SCORE_CHECK}.minimum", 0, 1),
    "checks.fields.*.maximum": Change(f"{_SCORE_CHECK}.maximum", 10, 9),
    "checks.fields.*.max_same": Change(f"{_LABEL_CHECK}.max_same", 0.5, 1),
    "checks.pilot.max_rejected": Change("checks.pilot.max_rejected", 0.1, 0.2),
    "checks.pilot.max_cost_ratio": Change("checks.pilot.max_cost_ratio", 2, 4),
}
