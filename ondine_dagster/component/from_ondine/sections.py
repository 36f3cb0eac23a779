"""Ondine's sections but for `llm`, as ours: dataset, prompt, processing, output, metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ondine_dagster.component.from_ondine.original import Original, variables, with_variables
from ondine_dagster.component.from_ondine.patterns import one_pattern
from ondine_dagster.component.from_ondine.templates import as_jinja, names_columns
from ondine_dagster.spec.templates import style_of

# Ondine's default for preprocessing_max_length, in characters
_LONGEST = 500
_BYTES_PER_TOKEN = 4
_ENDINGS = {"csv": ".csv", "excel": ".xlsx", "parquet": ".parquet"}
_NOT_NEEDED = {
    "processing.batch_size": "not needed: how many rows Ondine loads at once. Partitions are cut "
    "by `partitions: {rows: 5000}`",
    "processing.checkpoint_interval": "not needed: every answer is kept as soon as it is there",
    "processing.checkpoint_dir": "not needed: the ledger is in the data folder (ONDINE_DATA_DIR)",
    "processing.cleanup_on_success": "not needed: the ledger stays, so that nothing is paid twice",
    "processing.retry_delay": "not needed: the provider says how long to wait, or the wait doubles",
    "processing.rate_limit_redis_url": "not needed: processes share the limit through the ledger",
    "processing.rate_limit_scope": "not needed: what asks one model with one key shares its limits",
    "processing.auto_retry_failed": "not a setting: `ondine-dagster retry` asks again for rejected "
    "rows",
    "processing.max_retry_attempts": "not a setting: each `ondine-dagster retry` asks once more",
    "processing.progress_mode": "not needed: a terminal shows progress, anything else gets lines",
    "output.atomic_write": "not needed: an export appears whole or not at all",
    "prompt.template_variables": "not needed: the template names its columns",
    "dataset.input_columns": "not needed: the template names the columns that are sent, and all "
    "columns of the source come back",
}
_POLICIES = {
    "fail": "`checks` say what stops a run; the first 20 rows are judged before the rest",
    "retry": "what may succeed is asked again in any case (`limits.max_attempts`); in Ondine this "
    "policy ends the run",
    "use_default": "no value is made up: rows without an answer are in `rejected_rows`",
}


def source_section(original: Original, name: str) -> dict[str, Any]:
    """Return our `source`; a table that is in no file gets the name of one to be written."""
    kind = original.take("dataset.source_type", "csv")
    path = with_variables(original.take("dataset.source_path"))
    if path is None:
        path = f"{name}.parquet"
        original.means(
            "dataset.source_type",
            f"a DataFrame is in no file: write it to {path}, or call ondine_dagster.enrich(frame)",
        )
        kind = "parquet"
    source: dict[str, Any] = {"path": path}
    if kind == "csv":
        csv = {}
        if (delimiter := original.take("dataset.delimiter", ",")) != ",":
            csv["delimiter"] = delimiter
        if (encoding := original.take("dataset.encoding", "utf-8")) != "utf-8":
            csv["encoding"] = encoding
        source |= {"csv": csv} if csv else {}
    for key in ("delimiter", "encoding"):
        if original.has(f"dataset.{key}") and kind != "csv":
            original.left_out(f"dataset.{key}", f"says nothing of a file of kind {kind}")
    _sheet(original, source, kind)
    return source


def _sheet(original: Original, source: dict[str, Any], kind: str) -> None:
    sheet = original.take("dataset.sheet_name")
    if isinstance(sheet, str) and kind == "excel":
        source["sheet"] = sheet
    elif sheet is not None:
        why = "sheets have names here: write it into `source.sheet`, if the file has several"
        original.left_out("dataset.sheet_name", why if kind == "excel" else "is for Excel files")


def prompt_section(original: Original) -> dict[str, Any]:
    """Return our `prompt`."""
    use_jinja = original.take("processing.use_jinja2")
    template = str(original.take("prompt.template", ""))
    prompt: dict[str, Any] = {}
    if (system := original.take("prompt.system_message")) is not None:
        prompt["system"] = _verbatim(str(system))
    for key, text in (("prompt.system_message", system), ("prompt.template", template)):
        if named := variables(text):
            original.means(
                key,
                f"Ondine puts the environment variable {', '.join(named)} into it, here "
                f"${{{named[0]}}} is text: write the value itself",
            )
    prompt["template"] = as_jinja(template, use_jinja, original.names("dataset.input_columns"))
    if template and not names_columns(prompt["template"]):
        original.means("prompt.template", "names no column: every row is asked the same question")
    if _reads_as_plain(prompt.values()):
        prompt["style"] = "jinja"
    if examples := original.take("prompt.few_shot_examples"):
        prompt["examples"] = [_example(one) for one in examples]
    return prompt | _cleaning(original)


def _example(example: Any) -> Any:
    """Return an example with an answer of fields as a mapping, where it is one."""
    if not isinstance(example, Mapping):
        return example
    try:
        answer = json.loads(str(example.get("output")))
    except ValueError:
        return dict(example)
    return {**example, "output": answer} if isinstance(answer, dict) else dict(example)


def _cleaning(original: Original) -> dict[str, Any]:
    """Return what tidies the columns as Ondine's preprocessing does."""
    longest = original.take("processing.preprocessing_max_length")
    if not original.take("processing.enable_preprocessing", False):
        if longest is not None:
            original.left_out(
                "processing.preprocessing_max_length", "enable_preprocessing is not true"
            )
        return {}
    original.means(
        "processing.enable_preprocessing",
        "letters, control characters and white space become as in Ondine, texts are cut by tokens; "
        "but nothing else is taken out: Ondine drops $ % : ? ! and quotes",
    )
    clean = {
        "unicode": "nfc",
        "control_characters": "space",
        "white_space": "collapse",
        "truncate_tokens": max(int(longest or _LONGEST) // _BYTES_PER_TOKEN, 1),
        "marker": "...",
    }
    columns = original.names("dataset.input_columns")
    return {"clean": {column: dict(clean) for column in columns}}


def _reads_as_plain(texts: Iterable[str]) -> bool:
    """Return whether a brace in these would be taken for a column's name in plain text."""
    try:
        return style_of(texts) == "plain"
    except ValueError:
        return True


def _verbatim(text: str) -> str:
    """Return a template that renders to this text: Ondine's system message is none."""
    if not any(tag in text for tag in ("{{", "{%", "{#")):
        return text
    return f"{{% raw %}}{text}{{% endraw %}}"


def output_section(original: Original) -> dict[str, Any]:
    """Return our `output`: fields, or the column of a plain text."""
    columns = original.names("dataset.output_columns")
    how = original.take("prompt.response_format", "raw")
    names = original.names("prompt.json_fields")
    if names and set(names) != set(columns):
        original.left_out("prompt.json_fields", "Ondine goes by dataset.output_columns, as here")
    if how == "regex":
        return _pattern(original)
    if original.has("prompt.regex_patterns"):
        original.left_out("prompt.regex_patterns", "is for response_format: regex")
    if how == "raw" and len(columns) == 1:
        return {"column": columns[0]}
    original.means(
        "dataset.output_columns",
        "every field is text here, and rows with another answer are rejected: give it a type, "
        "allowed values or bounds in `output.fields`",
    )
    return {"fields": {name: {"type": "string"} for name in columns}}


def _pattern(original: Original) -> dict[str, Any]:
    patterns = original.mapping("prompt.regex_patterns")
    if not patterns:
        return {}
    pattern = one_pattern({str(name): str(text) for name, text in patterns.items()})
    if pattern is None:
        original.left_out(
            "prompt.regex_patterns",
            "these cannot be joined into one: write `output.pattern` with a named group for each "
            "column, or `output.function` (my_module:parse)",
        )
        return {}
    original.means(
        "prompt.regex_patterns",
        "an answer in which not all of them are found is rejected; Ondine leaves a cell empty",
    )
    return {"pattern": pattern}


def condition(original: Original) -> str | None:
    """Return our `when` for Ondine's filters: which rows are asked."""
    filters = original.mapping("dataset.filters")
    if not filters:
        return None
    original.means(
        "dataset.filters",
        "rows that do not fit are not asked, and cost nothing; but they are in the results, with "
        "empty output columns",
    )
    return " and ".join(
        f"row[{json.dumps(str(name), ensure_ascii=False)}]"
        + ("" if isinstance(value, str) else " | string")
        + f" == {json.dumps(str(value), ensure_ascii=False)}"
        for name, value in filters.items()
    )


def limits_section(original: Original) -> dict[str, Any]:
    """Return our `limits`, and explain the rest of Ondine's `processing`."""
    limits: dict[str, Any] = {"concurrency": original.take("processing.concurrency", 5)}
    if (budget := original.take("processing.max_budget")) is not None:
        limits["budgets"] = [{"usd": budget, "per": "run"}]
        original.means(
            "processing.max_budget",
            "Ondine looks at it after the money is spent; here no request is sent that could pass "
            "it. It holds per run: `limits.budget_usd` holds for all runs together",
        )
    rate = "processing.rate_limit" if original.has("processing.rate_limit") else None
    if (rpm := original.take(rate or "processing.rate_limit_rpm")) is not None:
        limits["requests_per_minute"] = rpm
    if (retries := original.take("processing.max_retries")) is not None:
        # Ondine's number is that of all attempts, the first among them
        limits["max_attempts"] = max(retries, 1) if isinstance(retries, int) else retries
    policy = original.take("processing.error_policy", "skip")
    if policy != "skip":
        original.left_out("processing.error_policy", _POLICIES.get(policy, f"{policy} is unknown"))
    if original.take("processing.adaptive_concurrency") is False:
        original.left_out(
            "processing.adaptive_concurrency",
            "cannot be switched off: concurrency goes down where the provider has no room",
        )
    if original.take("processing.execution_mode", "live") != "live":
        original.left_out(
            "processing.execution_mode",
            "providers' batch jobs are not supported yet: requests are sent one by one",
        )
    for key, why in _NOT_NEEDED.items():
        if original.has(key):
            original.left_out(key, why)
    return limits


def batching_section(original: Original) -> dict[str, Any]:
    """Return our `batching`, empty where each row is a request of its own."""
    rows = original.take("prompt.batch_size", 1)
    strategy = original.take("prompt.batch_strategy", "json")
    if strategy != "json":
        original.left_out("prompt.batch_strategy", "Ondine asks in JSON whatever this says")
    return {"rows_per_request": rows} if rows != 1 else {}


def export_section(original: Original) -> dict[str, Any]:
    """Return our `export`, empty where results go nowhere."""
    path = with_variables(original.take("output.destination_path"))
    kind = original.take("output.format") or original.take("output.destination_type")
    merge = original.take("output.merge_strategy", "replace")
    if path is None:
        if merge != "replace":
            original.left_out("output.merge_strategy", "there is no output.destination_path")
        return {}
    if merge != "replace":
        original.left_out(
            "output.merge_strategy",
            "a file is always written as a whole; in a database table, `export.mode` may be append "
            "or update",
        )
    ending = _ENDINGS.get(str(kind))
    if ending and "." not in path.rsplit("/", 1)[-1]:
        path += ending
    return {"to": path}


def about(original: Original) -> dict[str, Any]:
    """Return what Ondine's `metadata` says of the dataset itself."""
    metadata = original.take("metadata", {})
    found = {}
    for name, value in metadata.items() if isinstance(metadata, Mapping) else ():
        if name == "description" and isinstance(value, str):
            found["description"] = value
        else:
            original.left_out(
                f"metadata.{name}", "there is no place for it; `description` and `owners` are shown"
            )
    return found
