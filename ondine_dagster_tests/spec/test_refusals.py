"""What a declaration may not say, and what its author is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ondine_dagster.spec import (
    AcceptList,
    AcceptPattern,
    AcceptRange,
    Dataset,
    DeclaredPrices,
    Limits,
    Llm,
    Output,
    OutputField,
    Partitions,
    Prompt,
    Source,
    format_errors,
)
from ondine_dagster.spec.columns import RESERVED_COLUMNS
from ondine_dagster.spec.dataset import RESERVED_NAMES
from ondine_dagster.spec.keys import (
    FIELD_TYPES_NOT_SUPPORTED_YET,
    NOT_SUPPORTED,
    NOT_SUPPORTED_YET,
    PROVIDERS_NOT_SUPPORTED_YET,
)
from ondine_dagster_tests.spec.declarations import (
    attributes,
    changed,
    only_problem,
    problems,
    without,
)


def _in_a_field(path: str) -> str:
    return path.replace("*", "score")


@pytest.mark.behaviour("E-4")
@pytest.mark.parametrize("path", sorted(NOT_SUPPORTED_YET))
def test_a_planned_setting_is_refused_by_name(path: str) -> None:
    place = _in_a_field(path)
    problem = only_problem(changed(place, 1))
    assert problem.message == f"`{place}` is not supported yet"
    assert problem.path == place


@pytest.mark.behaviour("P-13")
@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("tracing", "ONDINE_TRACES"),
        ("mode", "run --replay"),
        ("encryption", "ONDINE_ENCRYPTION_KEY"),
    ],
)
def test_what_is_said_elsewhere_is_refused_with_the_place(key: str, where: str) -> None:
    problem = only_problem(changed(key, "live"))
    assert problem.message.startswith(f"`{key}` is no part of a declaration")
    assert where in problem.message


@pytest.mark.parametrize("path", sorted(NOT_SUPPORTED))
def test_tools_pictures_and_sound_are_refused_by_name(path: str) -> None:
    problem = only_problem(changed(path, True))
    assert problem.message.startswith(
        f"`{path}` is not supported: a row is one question with one text"
    )


@pytest.mark.parametrize("provider", sorted(PROVIDERS_NOT_SUPPORTED_YET))
def test_a_planned_provider_is_refused_by_name(provider: str) -> None:
    problem = only_problem(changed("llm.provider", provider))
    assert f"`llm.provider` is '{provider}', which is not supported yet" in problem.message
    assert "openai_compatible, " in problem.message


@pytest.mark.parametrize("kind", sorted(FIELD_TYPES_NOT_SUPPORTED_YET))
def test_a_planned_field_type_is_refused_by_name(kind: str) -> None:
    problem = only_problem(changed("output.fields.score.type", kind))
    assert f"is '{kind}', which is not supported yet" in problem.message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("llm.temprature", "unknown key `temprature` in llm; did you mean `temperature`?"),
        ("promt", "unknown key `promt` in the declaration; did you mean `prompt`?"),
        ("llm.model", "unknown key `model` in llm; did you mean `name`?"),
        ("llm.Temperature", "unknown key `Temperature` in llm; did you mean `temperature`?"),
        ("temperature", "did you mean `llm.temperature`?"),
        ("model", "unknown key `model` in the declaration; did you mean `llm.name`?"),
        ("batching.batch_size", "in batching; did you mean `rows_per_request`?"),
        ("limits.max_retries", "unknown key `max_retries` in limits; did you mean `max_attempts`?"),
        ("limits.budget", "unknown key `budget` in limits; did you mean `budget_usd`?"),
        ("limits.rpm", "unknown key `rpm` in limits; did you mean `requests_per_minute`?"),
        ("limits.tpd", "unknown key `tpd` in limits; did you mean `tokens_per_day`?"),
        ("limits.max_outage", "in limits; did you mean `max_outage_seconds`?"),
        ("max_cost", "in the declaration; did you mean `limits.budget_usd`?"),
        ("output.fields.score.min", "in output.fields.score; did you mean `minimum`?"),
        ("llm.prices.input_per_million", "in llm.prices; did you mean `input_per_million_usd`?"),
        ("partitions.qqq", "in partitions; known keys: files, rows, time, values"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest_right_one(path: str, message: str) -> None:
    problem = only_problem(changed(path, 1))
    assert problem.message.startswith(f"unknown key `{path.rpartition('.')[2]}` in ")
    assert problem.message.endswith(message)
    assert problem.path == path


def test_a_rule_of_accept_is_answered_with_the_keys_of_both_kinds() -> None:
    place = "output.fields.note.accept"
    assert only_problem(changed(place, {"patern": "x"})).message.endswith("mean `pattern`?")
    both = only_problem(changed(place, {"pattern": "x", "minimum": 1}))
    assert "bounds or a pattern, not both" in both.message


def test_a_key_in_the_declaration_is_refused_and_its_value_shown_nowhere() -> None:
    values = changed("llm.api_key", "sk-canary")
    with pytest.raises(ValidationError) as caught:
        Dataset.model_validate(values)
    problem = only_problem(values)
    assert "set the environment variable of the provider" in problem.message
    assert "sk-canary" not in f"{problem} {caught.value}"


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-Api-Key",
        "api-key",
        "x-gateway-token",
        "Cookie",
        "X-Client-Secret",
        "key",
    ],
)
def test_a_header_that_is_a_secret_has_no_value_in_a_declaration(name: str) -> None:
    problem = only_problem(changed("llm.headers", {name: "sk-canary"}))
    assert "name that in llm.header_variables" in problem.message
    assert "canary" not in problem.message


def test_a_header_stands_in_one_of_the_two_places() -> None:
    start = changed("llm.headers", {"X-Team": "a"})
    problem = only_problem(changed("llm.header_variables", {"x-team": "TEAM"}, start))
    assert problem.message == "`llm.header_variables` has x-team, which llm.headers has as well"


_WRONG: list[tuple[str, Any, str]] = [
    ("name", "Reviews", "is 'Reviews'; it must start with a small letter"),
    ("name", "a" * 64, "at most 63"),
    ("name", "a-b", "small letters, digits and _"),
    ("name", "reviews\n", "small letters, digits and _"),
    ("name", 3, "is 3; it must be text"),
    ("description", " ", "is ' '; it must be text that is not empty"),
    ("owners", "team:a", "is 'team:a'; it must be a list"),
    ("owners", ["ana"], "is 'ana'; it must be an e-mail address, or team:name"),
    ("source", None, "is empty; write its settings below it"),
    ("source", "reviews.csv", "is 'reviews.csv'; it must be a mapping"),
    ("source.path", "reviews.xls", "it must end in .csv, .tsv, .parquet"),
    ("source.path", "reviews", "it must end in .csv, .tsv, .parquet"),
    ("source.path", "reviews.parquet.gz", "files of this kind are not supported"),
    ("source.csv.delimiter", ";;", "it must be one character"),
    ("source.csv.quote", "ab", "it must be one character"),
    ("source.csv.escape", '"', "as is quote; each needs a character of its own"),
    ("source.csv.encoding", "utf-9", "it must be an encoding such as utf-8"),
    ("source.csv.encoding", "rot13", "it must be an encoding such as utf-8"),
    ("source.csv.skip_lines", -1, "is -1; it must be"),
    ("source.sheet", "Reviews", "reviews.csv is no Excel file"),
    ("source.path", "ftp://host/x.csv", "of addresses, it must be one of s3://"),
    ("source.key", 3, "is 3; it must be a column, or a list of columns"),
    ("source.key", ["id", "id"], "names the column 'id' twice"),
    ("source.key", [""], "is ''; it must be text that is not empty"),
    ("source.types", {"id": "int"}, "is 'int'; it must be one of 'text', 'integer'"),
    ("partitions.rows", 0, "is 0; it must be at least 1"),
    ("partitions.rows", True, "is True; it must be a whole number"),
    ("partitions.rows", 1.5, "is 1.5; it must be a whole number"),
    ("partitions.rows", "5", "is '5'; it must be a whole number"),
    ("prompt.template", "", "is ''; it must be text that is not empty"),
    ("prompt.template", "a\n{% if b %}", "in line 2 of the template"),
    ("prompt.template", "{{ a | shout }}", "No filter named 'shout'"),
    ("prompt.template", "a\n{% extends 'b' %}", "loads another template in line 2"),
    ("prompt.template", "{% include 'b' %}", "includes 'b', which is not in prompt.partials"),
    ("prompt.template", "{% include b %}", "includes what is computed in line 1"),
    ("prompt.template", "{{ a | random }}", "No filter named 'random'"),
    ("prompt.template", "{{ a }} {b}", "has {b} beside Jinja's {{: a prompt has one style"),
    ("prompt.template", '{b}\n{"x": 1}', "has a { in line 2 that is not round a column's name"),
    ("prompt.template_file", "a.txt", "but there is `template` too; remove one of them"),
    ("prompt.style", "f-string", "it must be one of 'jinja' or 'plain'"),
    ("prompt.examples", [{"input": "a"}], "`prompt.examples[0].output` is missing"),
    ("prompt.examples", [{"input": 1, "output": "a"}], "is 1; it must be text"),
    ("prompt.examples_file", "a.csv", "it must end in .json, .jsonl, .yaml, .yml"),
    ("prompt.clean", {"a": {}}, "`prompt.clean.a` says nothing to do; remove it"),
    ("prompt.clean", {"a": {"marker": "x"}}, "nothing is cut without truncate_tokens"),
    ("prompt.system", "{{ a", "is no valid Jinja template"),
    ("llm.provider", "olama", "is 'olama'; did you mean 'ollama'?"),
    ("llm.provider", "xyz", "is 'xyz'; it must be one of openai_compatible, "),
    ("llm.key_variable", "sk-canary-1", "is no name of an environment variable"),
    ("llm.name", " m", "no spaces around it"),
    ("llm.headers", {"X Team": "a"}, "has 'X Team', which is no name of a header"),
    ("llm.headers", {"X-Team": "é"}, "has 'é' for x-team; it must be plain ASCII text"),
    ("llm.headers", {"X-Team": "a\nb"}, "for x-team; it must be plain ASCII text"),
    ("llm.headers", {"Content-Length": "5"}, "has Content-Length, which the client sets itself"),
    ("llm.headers", {"X-Team": "a", "x-team": "b"}, "has x-team twice"),
    ("llm.headers", "X-Team: a", "it must be a mapping"),
    ("llm.header_variables", {"X-Token": "sk-canary-1"}, "no name of an environment variable"),
    ("llm.provider_name", " gateway", "no spaces around it"),
    ("llm.identity", "a\nb", "no line breaks"),
    ("llm.prices", 0.15, "is 0.15; it must be a mapping"),
    ("llm.prices.input_per_million_usd", -1, "is -1; it must be an amount in USD, 0 to 10000"),
    ("llm.prices.output_per_million_usd", 10_001, "must be an amount in USD, 0 to 10000"),
    ("llm.prices.input_per_million_usd", "cheap", "is 'cheap'; it must be an amount in USD"),
    ("llm.prices.input_per_million_usd", True, "is True; it must be an amount in USD"),
    ("llm.prices.output_per_million_usd", float("nan"), "it must be an amount in USD"),
    ("llm.temperature", 2.1, "is 2.1; it must be at most 2"),
    ("llm.temperature", -0.1, "is -0.1; it must be at least 0"),
    ("llm.temperature", True, "is True; it must be a number"),
    ("llm.temperature", "0", "is '0'; it must be a number"),
    ("llm.top_p", 0, "is 0; it must be more than 0"),
    ("llm.top_p", 1.1, "is 1.1; it must be at most 1"),
    ("llm.seed", 1.0, "is 1.0; it must be a whole number"),
    ("llm.seed", 2**63, "it must be at most"),
    (
        "llm.base_url",
        "https://llm.example.com/v1/chat/completions",
        "it must end before /chat/completions",
    ),
    ("llm.max_tokens", 0, "is 0; it must be at least 1"),
    ("llm.max_tokens", None, "is empty; it must be a whole number"),
    ("llm.raised_max_tokens", 1024, "must be more than llm.max_tokens, which is 1024"),
    ("llm.raised_max_tokens", 10_000_001, "it must be at most"),
    ("llm.prices.tiers", {}, "is {}; it must be a list"),
    ("llm.max_tokens_field", "tokens", "it must be one of 'max_tokens'"),
    ("output.fields.score.type", "int", "it must be one of 'string', 'integer'"),
    ("output.fields.score.required", "no", "is 'no'; it must be true or false"),
    ("output.fields.score.minimum", 11, "is 11, above the maximum 10"),
    ("output.fields.score.minimum", 0.5, "is 0.5; it must be a whole number"),
    ("output.fields.score.minimum", float("inf"), "is inf; it must be a number"),
    ("output.fields.note.maximum", 3, "the field is a string; bounds are for numbers"),
    ("output.fields.label.enum", [], "is empty; it must list at least one value"),
    ("output.fields.label.enum", ["a", "a"], "lists 'a' twice"),
    ("output.fields.label.enum", ["a", 1], "lists 1; its values must be of type string"),
    ("output.fields.label.enum", ["a", True], 'put them in quotes, "yes"'),
    ("output.fields.score.enum", ["1"], "lists '1'; its values must be of type integer"),
    ("output.fields.score.enum", [1, 11], "lists 11, which lies outside minimum and maximum"),
    ("output.fields.note", {"type": "boolean", "enum": [True]}, "is true or false anyway"),
    ("output.fields.label.accept", ["mixed"], "lists 'mixed', which is not in enum"),
    ("output.fields.label.accept", [], "is empty"),
    ("output.fields.label.accept", {"pattern": "x+"}, "no value that the model may give"),
    ("output.fields.score.accept", [3, 99], "lists 99, which lies outside minimum and maximum"),
    ("output.fields.score.accept", {"minimum": 11}, "no value that the model may give"),
    ("output.fields.score.accept", {"maximum": -1}, "no value that the model may give"),
    ("output.fields.label.accept", {"minimum": 1}, "bounds are for numbers"),
    ("output.fields.score.accept", {"pattern": "x"}, "patterns are for strings"),
    ("output.fields.score.accept", {"minimum": 3, "maximum": 1}, "above the maximum 1"),
    ("output.fields.score.accept", {}, "it must have a minimum, a maximum, or both"),
    ("output.fields.score.accept", ["3"], "lists '3'; its values must be of type integer"),
    ("output.fields.score.accept", 3, "it must be a list of values, {minimum, maximum}"),
    ("output.fields.note.accept", {"pattern": "("}, "it must be a regular expression"),
    ("output.fields.score.column", "_outcome", "a column that ondine_dagster adds"),
    ("output.fields.score.column", "", "is ''; it must be text that is not empty"),
    ("output.fields", {"_ROW_KEY": {"type": "string"}}, "a column that ondine_dagster adds"),
    ("output.fields", {True: {"type": "string"}}, "has a name that is not text"),
    ("output.column", "response", "the column of a plain text answer, but there are fields"),
    ("limits", None, "is empty; write its settings below it"),
    ("limits.budget_usd", -1, "is -1; it must be an amount in USD, 0 to 1000000"),
    ("limits.budget_usd", "five", "is 'five'; it must be an amount in USD"),
    ("limits.budget_usd", 1_000_001, "it must be an amount in USD, 0 to 1000000"),
    ("limits.budgets", {"usd": 1, "per": "day"}, "it must be a list"),
    ("limits.budgets", [5], "[0]` is 5; it must be a mapping"),
    ("limits.budgets", [{"per": "day"}], "[0]` has no amount; it must have exactly one of usd"),
    ("limits.budgets", [{"usd": 1, "tokens": 1, "per": "day"}], "[0]` has usd and tokens; it must"),
    ("limits.budgets", [{"usd": 1}], "[0].per` is missing; it is required"),
    ("limits.budgets", [{"usd": 1, "per": "week"}], "is 'week'; it must be one of 'run', 'day'"),
    ("limits.budgets", [{"tokens": -1, "per": "day"}], "[0].tokens` is -1; it must be at least 0"),
    ("limits.budgets", [{"requests": 1.5, "per": "day"}], "is 1.5; it must be a whole number"),
    ("limits.warn_at_percent", 75, "is 75; it must be a list"),
    ("limits.warn_at_percent", [0], "[0]` is 0; it must be at least 1"),
    ("limits.warn_at_percent", [75, 100], "[1]` is 100; it must be at most 99"),
    ("limits.warn_at_percent", [90, 75], "is [90, 75]; it must rise, as in [75, 90]"),
    ("limits.warn_at_percent", [75, 75], "is [75, 75]; it must rise"),
    ("limits.requests_per_minute", 0, "is 0; it must be at least 1"),
    ("limits.tokens_per_minute", 0.5, "is 0.5; it must be a whole number"),
    ("limits.requests_per_day", 0, "is 0; it must be at least 1"),
    ("limits.tokens_per_day", 0, "is 0; it must be at least 1"),
    ("limits.max_outage_seconds", -1, "is -1; it must be at least 0"),
    ("limits.concurrency", 0, "is 0; it must be at least 1"),
    ("limits.concurrency", 1001, "is 1001; it must be at most 1000"),
    ("limits.max_attempts", 0, "is 0; it must be at least 1"),
    ("limits.max_unknown", -1, "is -1; it must be at least 0"),
    ("limits.on_unknown", "ask", "it must be one of 'reask' or 'hold'"),
    ("limits.drain_seconds", -1, "is -1; it must be at least 0"),
    ("limits.timeout_seconds", 0, "is 0; it must be more than 0"),
    ("limits.timeout_seconds", float("inf"), "is inf; it must be a finite number"),
]


@pytest.mark.parametrize(("path", "value", "message"), _WRONG)
def test_a_wrong_value_is_refused_with_what_would_be_right(
    path: str, value: Any, message: str
) -> None:
    problem = only_problem(changed(path, value))
    assert message in problem.message
    assert problem.message.startswith(f"`{path}")


@pytest.mark.parametrize(
    ("thresholds", "path", "message"),
    [
        ([0], "[0].above_prompt_tokens", "is 0; it must be at least 1"),
        ([1, 5, 5], "[2].above_prompt_tokens", "is 5; it must be more than 5"),
        ([5, 4], "[1].above_prompt_tokens", "is 4; it must be more than 5"),
        (["5"], "[0].above_prompt_tokens", "is '5'; it must be a whole number"),
        ([None], "[0].above_prompt_tokens", "is empty; it must be a whole number"),
    ],
)
def test_thresholds_of_prices_that_do_not_go_up_are_refused(
    thresholds: list[Any], path: str, message: str
) -> None:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 1}
    tiers = [{**prices, "above_prompt_tokens": threshold} for threshold in thresholds]
    problem = only_problem(changed("llm.prices.tiers", tiers))
    assert problem.path == f"llm.prices.tiers{path}"
    assert message in problem.message


def test_an_unknown_key_of_a_tier_is_refused_with_the_right_one() -> None:
    tier = {"above_tokens": 1, "input_per_million_usd": 1, "output_per_million_usd": 1}
    messages = {one.message for one in problems(changed("llm.prices.tiers", [tier]))}
    assert messages == {
        "`llm.prices.tiers[0].above_prompt_tokens` is missing; it is required",
        "unknown key `above_tokens` in llm.prices.tiers[0]; did you mean `above_prompt_tokens`?",
    }


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_the_names_of_other_schemas_are_reserved(name: str) -> None:
    assert "is reserved" in only_problem(changed("name", name)).message


@pytest.mark.behaviour("E-11")
@pytest.mark.parametrize("column", sorted(RESERVED_COLUMNS))
def test_no_output_column_has_the_name_of_an_added_one(column: str) -> None:
    message = only_problem(changed("output.fields.score.column", column.upper())).message
    assert "a column that ondine_dagster adds" in message


@pytest.mark.behaviour("E-11")
@pytest.mark.parametrize("column", ["label", "LABEL"])
def test_two_fields_cannot_become_one_column(column: str) -> None:
    problem = only_problem(changed("output.fields.score.column", column))
    assert problem.path == "output.fields.score"
    assert f"becomes the column '{column}', and so does the field 'label'" in problem.message


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "source",
        "source.path",
        "prompt",
        "prompt.template",
        "llm",
        "llm.provider",
        "llm.name",
        "llm.prices.input_per_million_usd",
        "llm.prices.output_per_million_usd",
        "output.fields.score.type",
    ],
)
def test_a_missing_setting_is_named(path: str) -> None:
    assert only_problem(without(path)).message == f"`{path}` is missing; it is required"


def test_all_problems_are_told_at_once() -> None:
    values = changed("llm.temprature", 1, changed("limits.max_rejected", 5, without("name")))
    assert {problem.path for problem in problems(values)} == {
        "name",
        "llm.temprature",
        "limits.max_rejected",
    }


def test_a_long_value_is_cut_in_the_message() -> None:
    message = only_problem(changed("name", "x" * 10_000)).message
    assert len(message) < 250


def test_types_of_a_parquet_source_are_refused() -> None:
    values = attributes(source={"path": "x.parquet", "types": {"a": "integer"}})
    assert "is for CSV files" in only_problem(values).message


@pytest.mark.parametrize(
    ("part", "arguments", "sentence"),
    [
        (Llm, {"temprature": 1}, "unknown key `temprature` in llm; did you mean"),
        (Limits, {"max_rejectd": 1}, "unknown key `max_rejectd` in limits; did you mean"),
        (Source, {"path": "x.xls"}, "`source.path` is 'x.xls'"),
        (Partitions, {"rows": 0}, "`partitions.rows` is 0"),
        (Prompt, {"template": "{{"}, "`prompt.template` is no valid Jinja template"),
        (DeclaredPrices, {}, "`llm.prices.input_per_million_usd` is missing"),
        (Output, {"columns": "x"}, "unknown key `columns` in output; did you mean `column`?"),
        (OutputField, {"type": "list"}, "`output.fields.*.type` is 'list'; did you mean 'array'?"),
        (AcceptRange, {}, "`output.fields.*.accept` has no bounds"),
        (AcceptPattern, {"pattern": "("}, "`output.fields.*.accept.pattern` is '('"),
    ],
)
def test_python_is_refused_in_the_same_words(
    part: type[BaseModel], arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        part(**arguments)
    assert sentence in str(caught.value)
    assert "errors.pydantic.dev" not in str(caught.value)


def test_the_text_of_a_refused_dataset_is_that_of_its_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        Dataset.model_validate(changed("llm.temprature", 1))
    (problem,) = format_errors(caught.value)
    assert problem.message in str(caught.value)
    assert problem.value == 1
    assert problem.location == ("llm", "temprature")


def test_a_list_of_accepted_values_is_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match="which is not in enum"):
        OutputField(type="string", enum=("a",), accept=AcceptList(("b",)))


def test_a_format_of_packs_without_packs_is_refused() -> None:
    with pytest.raises(ValidationError, match="is csv, but each row goes in a request"):
        Dataset.model_validate(attributes(batching={"format": "csv"}))


def test_a_server_without_an_address_of_its_own_needs_one() -> None:
    problem = only_problem(without("llm.base_url"))
    assert problem.message.startswith("`llm.base_url` is missing; openai_compatible has no address")
    assert Dataset.model_validate(changed("llm.provider", "ollama", without("llm.base_url")))
