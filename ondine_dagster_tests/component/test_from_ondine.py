"""Every key of Ondine's schema (2.1.1) is either carried over, or told with its line and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.component.from_ondine.composition import convert
from ondine_dagster.component.from_ondine.converting import Converted
from ondine_dagster.component.from_ondine.patterns import one_pattern
from ondine_dagster.component.from_ondine.templates import as_jinja
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prompt import PromptRenderer
from ondine_dagster.spec import Dataset, Prompt

SMALLEST: Mapping[str, Any] = {
    "dataset": {
        "source_type": "csv",
        "source_path": "reviews.csv",
        "input_columns": ["review"],
        "output_columns": ["label"],
    },
    "prompt": {"template": "Review: {review}"},
    "llm": {"provider": "openai", "model": "gpt-4o-mini"},
}
AZURE = {
    "llm.provider": "azure_openai",
    "llm.azure_endpoint": "https://r.openai.azure.com",
    "llm.azure_deployment": "mine",
}
FIELDS = {"prompt.response_format": "json"}

# key: its value, what goes with it, and what becomes of it: our settings, or words of the remark
KEYS: dict[str, tuple[Any, Mapping[str, Any], Mapping[str, Any] | str]] = {
    "dataset.source_type": ("excel", {"dataset.source_path": "a.xlsx"}, {"source.path": "a.xlsx"}),
    "dataset.source_path": ("in/a.csv", {}, {"source.path": "in/a.csv"}),
    "dataset.input_columns": (["review"], {}, "the template names the columns"),
    "dataset.output_columns": (["topic"], {}, {"output.column": "topic"}),
    "dataset.filters": (
        {"lang": 'e"n', "n": 5},
        {},
        {"when": 'row["lang"] == "e\\"n" and row["n"] | string == "5"'},
    ),
    "dataset.sheet_name": (
        "May",
        {"dataset.source_type": "excel", "dataset.source_path": "a.xlsx"},
        {"source.sheet": "May"},
    ),
    "dataset.delimiter": (";", {}, {"source.csv.delimiter": ";"}),
    "dataset.encoding": ("cp1252", {}, {"source.csv.encoding": "cp1252"}),
    "prompt.template": ("Say {review}!", {}, {"prompt.template": "Say {{ review }}!"}),
    "prompt.system_message": ("You label.", {}, {"prompt.system": "You label."}),
    "prompt.template_variables": (["review"], {}, "the template names its columns"),
    "prompt.response_format": ("json", {}, {"output.fields.label.type": "string"}),
    "prompt.json_fields": (["other"], FIELDS, "goes by dataset.output_columns"),
    "prompt.few_shot_examples": (
        [{"input": "so {so}", "output": "meh"}],
        {},
        {"prompt.examples": [{"input": "so {so}", "output": "meh"}]},
    ),
    "prompt.regex_patterns": (
        {"label": r"Label: (\w+)"},
        {"prompt.response_format": "regex"},
        {"output.pattern": r"(?:Label: (?P<label>\w+))"},
    ),
    "prompt.batch_size": (25, {}, {"batching.rows_per_request": 25}),
    "prompt.batch_strategy": ("csv", {}, "asks in JSON whatever this says"),
    "llm.provider": ("anthropic", {"llm.model": "claude-haiku-4-5"}, {"llm.provider": "anthropic"}),
    "llm.model": ("gpt-4o", {}, {"llm.name": "gpt-4o"}),
    "llm.api_key": ("${MY_KEY}", {}, {"llm.key_variable": "MY_KEY"}),
    "llm.temperature": (0.5, {}, {"llm.temperature": 0.5}),
    "llm.max_tokens": (77, {}, {"llm.max_tokens": 77}),
    "llm.top_p": (0.9, {}, {"llm.top_p": 0.9}),
    "llm.enable_prefix_caching": (True, {}, "goes first"),
    "llm.azure_endpoint": (
        "https://a.openai.azure.com",
        AZURE,
        {"llm.base_url": "https://a.openai.azure.com", "llm.provider": "azure"},
    ),
    "llm.azure_deployment": ("d", AZURE, {"llm.name": "d", "llm.azure.model": "gpt-4o-mini"}),
    "llm.api_version": ("2024-10-21", AZURE, {"llm.azure.api_version": "2024-10-21"}),
    "llm.use_managed_identity": (True, AZURE, {"llm.azure.credential": "managed_identity"}),
    "llm.azure_ad_token": ("canary-0815", AZURE, {"llm.azure.credential": "token"}),
    "llm.base_url": (
        "http://127.0.0.1:9/v1",
        {},
        {"llm.base_url": "http://127.0.0.1:9/v1", "llm.provider": "openai_compatible"},
    ),
    "llm.provider_name": ("mine", {}, {"llm.provider_name": "mine"}),
    "llm.input_cost_per_1k_tokens": (
        0.00015,
        {"llm.output_cost_per_1k_tokens": "0.0006"},
        {"llm.prices.input_per_million_usd": 0.15, "llm.prices.output_per_million_usd": 0.6},
    ),
    "llm.output_cost_per_1k_tokens": (0.002, {}, "declare both"),
    "llm.structured_output_mode": ("native", {}, "llm.structured"),
    "llm.instructor_mode": ("json", FIELDS, {"llm.structured": "json_object"}),
    "llm.router_config": ({"model_list": []}, {}, "llm.fallback"),
    "llm.cache_config": ({"type": "redis"}, {}, "nothing is paid twice"),
    "llm.extra_params": ({"seed": 7}, {}, {"llm.seed": 7}),
    "llm.custom_provider_id": ("mine", {}, "package.module:Class"),
    "processing.batch_size": (200, {}, "partitions"),
    "processing.concurrency": (40, {}, {"limits.concurrency": 40}),
    "processing.checkpoint_interval": (100, {}, "as soon as it is there"),
    "processing.max_retries": (4, {}, {"limits.max_attempts": 4}),
    "processing.retry_delay": (2.0, {}, "how long to wait"),
    "processing.error_policy": ("use_default", {}, "rejected_rows"),
    "processing.rate_limit_rpm": (60, {}, {"limits.requests_per_minute": 60}),
    "processing.rate_limit": (60, {}, {"limits.requests_per_minute": 60}),
    "processing.rate_limit_redis_url": ("redis://x", {}, "through the ledger"),
    "processing.rate_limit_scope": ("team", {}, "shares its limits"),
    "processing.adaptive_concurrency": (False, {}, "cannot be switched off"),
    "processing.max_budget": (5, {}, {"limits.budgets": [{"usd": 5, "per": "run"}]}),
    "processing.checkpoint_dir": (".ck", {}, "ONDINE_DATA_DIR"),
    "processing.enable_preprocessing": (
        True,
        {"processing.preprocessing_max_length": 400},
        {"prompt.clean.review.truncate_tokens": 100, "prompt.clean.review.unicode": "nfc"},
    ),
    "processing.preprocessing_max_length": (300, {}, "enable_preprocessing is not true"),
    "processing.auto_retry_failed": (True, {}, "ondine-dagster retry"),
    "processing.max_retry_attempts": (2, {}, "ondine-dagster retry"),
    "processing.use_jinja2": (True, {}, {"prompt.template": "Review: {review}"}),
    "processing.progress_mode": ("rich", {}, "progress"),
    "processing.cleanup_on_success": (False, {}, "the ledger stays"),
    "processing.execution_mode": ("provider_batch", {}, "batch jobs"),
    "output.destination_type": (
        "parquet",
        {"output.destination_path": "out/labels"},
        {"export.to": "out/labels.parquet"},
    ),
    "output.destination_path": ("o.xlsx", {}, {"export.to": "o.xlsx"}),
    "output.atomic_write": (True, {}, "whole or not at all"),
    "output.merge_strategy": ("update", {"output.destination_path": "o.csv"}, "export.mode"),
    "metadata": ({"description": "Ours.", "team": "x"}, {}, {"description": "Ours."}),
}


def with_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    config = deepcopy(dict(SMALLEST))
    for key, value in keys.items():
        *sections, name = key.split(".")
        section = config
        for one in sections:
            section = section.setdefault(one, {})
        section[name] = value
    return config


def converted(folder: Path, config: Mapping[str, Any]) -> Converted:
    (folder / "ondine.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return convert(folder / "ondine.yaml", "labels")[0]


def at(attributes: Mapping[str, Any], path: str) -> Any:
    value: Any = attributes
    for name in path.split("."):
        value = value[name]
    return value


def told(one: Converted, key: str) -> str:
    return " | ".join(remark.text for remark in one.remarks if remark.key == key)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_carried_over_or_told(tmp_path: Path, key: str) -> None:
    value, beside, becomes = KEYS[key]
    one = converted(tmp_path, with_keys({**beside, key: value}))
    Dataset.model_validate(dict(one.attributes))
    assert "canary" not in str(one.attributes)
    if isinstance(becomes, str):
        assert becomes in told(one, key)
        line = next(remark.line for remark in one.remarks if remark.key == key)
        text = (tmp_path / "ondine.yaml").read_text().splitlines()
        assert line is not None
        assert key.rpartition(".")[2] in text[line - 1]
    else:
        assert {path: at(one.attributes, path) for path in becomes} == becomes


def test_no_key_of_the_schema_is_forgotten() -> None:
    """The keys of Ondine 2.1.1, by section: core/specifications.py and its loader."""
    schema = {
        "dataset": "source_type source_path input_columns output_columns filters sheet_name "
        "delimiter encoding",
        "prompt": "template system_message few_shot_examples template_variables response_format "
        "json_fields regex_patterns batch_size batch_strategy",
        "llm": "provider model api_key temperature max_tokens top_p enable_prefix_caching "
        "azure_endpoint azure_deployment api_version use_managed_identity azure_ad_token base_url "
        "provider_name input_cost_per_1k_tokens output_cost_per_1k_tokens structured_output_mode "
        "instructor_mode router_config cache_config extra_params custom_provider_id",
        "processing": "batch_size concurrency checkpoint_interval max_retries retry_delay "
        "error_policy rate_limit_rpm rate_limit rate_limit_redis_url rate_limit_scope "
        "adaptive_concurrency max_budget checkpoint_dir enable_preprocessing "
        "preprocessing_max_length auto_retry_failed max_retry_attempts use_jinja2 progress_mode "
        "cleanup_on_success execution_mode",
        "output": "destination_type destination_path merge_strategy atomic_write",
    }
    keys = {f"{section}.{key}" for section, keys in schema.items() for key in keys.split()}
    assert keys | {"metadata"} == set(KEYS)


def steps(folder: Path, *columns: tuple[str, list[str]]) -> Path:
    """Write a composition, and a configuration for each of its columns."""
    for column, needs in columns:
        names = ["review", *needs]
        template = " ".join(f"{{{name}}}" for name in names)
        config = with_keys(
            {
                "dataset.input_columns": names,
                "dataset.output_columns": [column],
                "prompt.template": template,
            }
        )
        (folder / f"{column}.yaml").write_text(yaml.safe_dump(config))
    pipelines = [
        {"column": column, "config": f"{column}.yaml", "depends_on": needs}
        for column, needs in columns
    ]
    path = folder / "steps.yaml"
    path.write_text(
        yaml.safe_dump({"composition": {"input": "in.csv", "pipelines": pipelines, "odd": 1}})
    )
    return path


def test_a_composition_becomes_datasets_that_read_one_another(tmp_path: Path) -> None:
    path = steps(tmp_path, ("why", ["mood", "stars"]), ("mood", []), ("stars", []))
    made = convert(path, "labels")
    assert [one.attributes["name"] for one in made] == [
        "labels_mood",
        "labels_stars",
        "labels_why",
    ]
    assert [one.attributes["source"] for one in made] == [
        {"path": "in.csv"},
        {"dataset": "labels_mood"},
        {"dataset": "labels_stars"},
    ]
    for one in made:
        Dataset.model_validate(dict(one.attributes))
    keys = {(remark.path.name, remark.key) for one in made for remark in one.remarks}
    assert ("steps.yaml", "composition.pipelines") in keys
    assert ("steps.yaml", "composition.odd") in keys
    assert ("stars.yaml", "dataset.source_path") in keys


@pytest.mark.parametrize(
    "columns", [[("a", ["b"]), ("b", ["a"])], [("a", ["nowhere"])]], ids=["circle", "missing"]
)
def test_steps_that_wait_for_one_another_are_told(tmp_path: Path, columns: Any) -> None:
    with pytest.raises(OndineError, match="depend on one another"):
        convert(steps(tmp_path, *columns), "labels")


@pytest.mark.parametrize(
    ("patterns", "answer"),
    [
        ({"label": r"Label: (\w+)"}, "So. Label: good"),
        ({"stars": r"\d"}, "a 4 and a 5"),
        ({"stars": r"(\d) of (\d)", "label": r"[(](?P<x>\w+)[)]"}, "it is\n(good)\n3 of 5"),
        ({"a": r"\(([^)(]*)\)", "b": "x|y"}, "y (in)"),
    ],
)
def test_patterns_find_what_ondine_finds(patterns: dict[str, str], answer: str) -> None:
    pattern = one_pattern(patterns)
    assert pattern is not None
    found = re.search(pattern, answer)
    assert found is not None
    for name, text in patterns.items():
        match = re.search(text, answer)
        assert match is not None
        assert found[name] == (match[1] if match.groups() else match[0])


@pytest.mark.parametrize("pattern", [r"(a)\1", "(", "(?i)a", r"(?P<q>a)(?P=q)"])
def test_patterns_that_cannot_be_joined_are_left_to_a_person(tmp_path: Path, pattern: str) -> None:
    keys = {"prompt.response_format": "regex", "prompt.regex_patterns": {"label": pattern}}
    one = converted(tmp_path, with_keys(keys))
    assert "output.function" in told(one, "prompt.regex_patterns")


def test_a_brace_in_a_system_message_is_no_column(tmp_path: Path) -> None:
    one = converted(tmp_path, with_keys({"prompt.system_message": "Fill {name}."}))
    assert one.attributes["prompt"]["style"] == "jinja"
    assert one.attributes["prompt"]["system"] == "Fill {name}."


def test_the_smallest_configuration_needs_no_word_but_that_on_its_columns(tmp_path: Path) -> None:
    one = converted(tmp_path, SMALLEST)
    assert [remark.key for remark in one.remarks] == ["dataset.input_columns"]
    assert dict(one.attributes) == {
        "name": "labels",
        "source": {"path": "reviews.csv"},
        "prompt": {"template": "Review: {{ review }}"},
        "llm": {"provider": "openai", "name": "gpt-4o-mini", "temperature": 0},
        "output": {"column": "label"},
        "limits": {"concurrency": 5},
    }


def test_what_nobody_knows_and_what_is_refused_is_told_with_its_line(tmp_path: Path) -> None:
    keys = {"llm.temperature": 7, "llm.extra_params": {"logit_bias": {}}, "llm.typo": 1, "more": {}}
    one = converted(tmp_path, with_keys(keys))
    assert "temperature" not in one.attributes["llm"]
    assert "7" in told(one, "llm.temperature")
    assert "not passed on" in told(one, "llm.extra_params.logit_bias")
    assert "does not know this key either" in told(one, "llm.typo")
    assert "does not know this key either" in told(one, "more")
    assert all(remark.line for remark in one.remarks)


def test_of_a_key_that_is_refused_only_the_reason_is_told(tmp_path: Path) -> None:
    one = converted(tmp_path, with_keys({"processing.max_budget": "${BUDGET}"}))
    (remark,) = [remark for remark in one.remarks if remark.key == "processing.max_budget"]
    assert not remark.carried
    assert "must be an amount in USD" in remark.text


@pytest.mark.parametrize(
    ("keys", "key", "says", "gone"),
    [
        ({"output.destination_path": "o.json"}, "output.destination_path", "must end in", "export"),
        (
            {"prompt.few_shot_examples": [{"input": "a", "output": "b"}, "c", {"input": 3}]},
            "prompt.few_shot_examples",
            "must be",
            "prompt.examples",
        ),
        ({"prompt.batch_size": 5000}, "prompt.batch_size", "1 to 1000", "batching"),
        (
            {"prompt.response_format": "regex", "prompt.regex_patterns": ["a"]},
            "prompt.regex_patterns",
            "must be a mapping",
            "output",
        ),
    ],
)
def test_what_is_refused_is_left_out_whole_and_nothing_else(
    tmp_path: Path, keys: dict[str, Any], key: str, says: str, gone: str
) -> None:
    one = converted(tmp_path, with_keys(keys))
    assert says in told(one, key)
    with pytest.raises(KeyError):
        at(one.attributes, gone)
    assert one.attributes["prompt"]["template"] == "Review: {{ review }}"


def test_one_name_may_stand_in_the_place_of_a_list(tmp_path: Path) -> None:
    one = converted(tmp_path, with_keys({"dataset.output_columns": "mood"}))
    assert one.attributes["output"] == {"column": "mood"}


def test_a_column_with_any_name_is_one_in_the_template(tmp_path: Path) -> None:
    columns = ["Review Text", "Unit-Price"]
    keys = {
        "dataset.input_columns": columns,
        "prompt.template": "{Review Text}: {Unit-Price:.2f}",
    }
    template = converted(tmp_path, with_keys(keys)).attributes["prompt"]["template"]
    row = {"Review Text": "fine", "Unit-Price": "1.5"}
    assert rendered(template, row) == "fine: 1.50"


def test_a_template_without_a_column_is_told(tmp_path: Path) -> None:
    one = converted(tmp_path, with_keys({"prompt.template": 'Say {"a": "b"}'}))
    assert "names no column" in told(one, "prompt.template")
    assert "names no column" not in told(converted(tmp_path, SMALLEST), "prompt.template")


def test_a_key_that_stands_in_the_file_is_shown_nowhere(tmp_path: Path) -> None:
    one = converted(tmp_path, with_keys({"llm.api_key": "sk-canary-0815"}))
    assert "canary" not in str(one)
    assert "OPENAI_API_KEY" in told(one, "llm.api_key")


@pytest.mark.parametrize(
    ("llm", "becomes"),
    [
        ({"model": "groq/llama-3.3-70b-versatile"}, ("groq", "llama-3.3-70b-versatile", None)),
        ({"model": "openrouter/a/b"}, ("openrouter", "a/b", None)),
        ({"model": "ollama_chat/qwen3:8b"}, ("ollama", "qwen3:8b", None)),
        ({"provider": "groq", "model": "openai/gpt-oss-20b"}, ("groq", "openai/gpt-oss-20b", None)),
        ({"model": "claude-haiku-4-5"}, ("anthropic", "claude-haiku-4-5", None)),
        (
            {"model": "deepseek/deepseek-chat"},
            ("openai_compatible", "deepseek-chat", "https://api.deepseek.com/v1"),
        ),
        (
            {"model": "acme/m1"},
            ("openai_compatible", "m1", "{{ env('ACME_BASE_URL') }}"),
        ),
        (
            {"provider": "openai_compatible", "model": "m", "base_url": "${URL}"},
            ("openai_compatible", "m", "{{ env('URL') }}"),
        ),
    ],
)
def test_models_go_where_ondine_sends_them(
    tmp_path: Path, llm: dict[str, Any], becomes: tuple[str, str, str | None]
) -> None:
    section = converted(tmp_path, {**SMALLEST, "llm": llm}).attributes["llm"]
    assert (section["provider"], section["name"], section.get("base_url")) == becomes


def test_the_older_spelling_of_the_source_is_read(tmp_path: Path) -> None:
    config = {key: value for key, value in SMALLEST.items() if key != "dataset"}
    source = {"type": "csv", "path": "older.csv"}
    columns = {"input_columns": ["review"], "output_columns": ["label"], "filters": {"a": 1}}
    one = converted(tmp_path, {"data": {"source": source, **columns}, **config})
    assert one.attributes["source"] == {"path": "older.csv"}
    line = next(remark.line for remark in one.remarks if remark.key == "dataset.filters")
    assert line is not None
    assert "filters" in (tmp_path / "ondine.yaml").read_text().splitlines()[line - 1]


def test_a_dataframe_gets_the_name_of_a_file_to_be_written(tmp_path: Path) -> None:
    config = with_keys({"dataset.source_type": "dataframe", "dataset.source_path": None})
    one = converted(tmp_path, config)
    assert one.attributes["source"] == {"path": "labels.parquet"}
    assert "enrich" in told(one, "dataset.source_type")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", ""),
        ("name: x\n", ""),
        ("dataset: {source_type: csv, source_path: a.csv}\n", ""),
        ("dataset: {source_path: a.csv}\nprompt: text\n", ":2: `prompt` must be a mapping"),
        ("dataset: {source_path: a.csv}\nprompt: {template: '{% if a %}'}\n", ":2: .*no valid"),
    ],
)
def test_what_is_no_configuration_of_ondine_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "ondine.yaml").write_text(text)
    with pytest.raises(OndineError, match=rf"ondine\.yaml{says}"):
        convert(tmp_path / "ondine.yaml", "labels")


def rendered(template: str, row: Mapping[str, Any]) -> str:
    found = PromptRenderer(Prompt.model_validate({"template": template})).render(row)
    assert isinstance(found, str)
    return str(yaml.safe_load(found)[0]["content"])


@pytest.mark.parametrize(
    "template",
    [
        "{a}{b}",
        '{{"k": "{a}"}}',
        "{a:>5}|{b:.2f}|{c:d}",
        "{a!r}",
        "100 % {a} {{ }} {{{{ {{",
    ],
)
def test_templates_render_as_python_formats_them(template: str) -> None:
    row = {"a": "x{{y}}", "b": "1.234", "c": "7"}
    # a cell of a CSV file is text for us and, in a format of numbers, a number
    numbers = {"a": row["a"], "b": 1.234 if ":.2f" in template else row["b"], "c": 7}
    assert rendered(as_jinja(template), row) == template.format(**numbers)


def test_braces_that_mean_themselves_stay() -> None:
    template = 'Answer {"n": {"m": 1}} for {a}'
    assert rendered(as_jinja(template), {"a": "x"}) == 'Answer {"n": {"m": 1}} for x'


def test_jinja_stays_as_it_is() -> None:
    assert as_jinja("{% if a %}{{ a }}{% endif %} {b}") == "{% if a %}{{ a }}{% endif %} {b}"


_TEXT = st.text(alphabet='{}%#" ab\n\\', max_size=12)


@given(st.lists(_TEXT, min_size=1, max_size=4))
def test_no_text_round_a_placeholder_becomes_a_tag(texts: list[str]) -> None:
    escaped = "{a}".join(text.replace("{", "{{").replace("}", "}}") for text in ["", *texts])
    if "{a}" not in escaped or re.search(r"\{%|\{#|\{\{\s*[A-Za-z_]", escaped):
        return  # Ondine takes it for Jinja
    try:
        expected = escaped.format(a="X")
    except ValueError:
        return
    pieces = re.split(r"(?<!\{)\{a\}", escaped)
    if any(len(run) % 2 for text in pieces for run in re.findall(r"\{+|\}+", text)):
        return  # braces that touch a placeholder: Ondine cannot tell either
    assert rendered(as_jinja(escaped), {"a": "X"}) == expected
