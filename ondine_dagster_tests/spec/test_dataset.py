"""What a right declaration means."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from ondine_dagster.spec import (
    RESERVED_COLUMNS,
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
)
from ondine_dagster_tests.spec.declarations import attributes, changed, only_problem, without


def _dataset(**changes: Any) -> Dataset:
    return Dataset.model_validate(attributes(**changes))


def _llm(**changes: Any) -> Llm:
    return Llm.model_validate({**attributes()["llm"], **changes})


def test_what_is_left_out_has_the_documented_default() -> None:
    dataset = _dataset(output={})
    assert dataset.partitions == Partitions(rows=5000)
    assert dataset.output == Output(fields={}, column="response")
    assert dataset.llm.max_tokens == 1024
    assert dataset.llm.raised_max_tokens is None
    assert dataset.llm.temperature is None
    assert dataset.limits == Limits(
        concurrency=16,
        max_attempts=5,
        max_unknown=2,
        on_unknown="reask",
        drain_seconds=20,
        timeout_seconds=120,
    )


def test_a_mapping_and_python_objects_declare_the_same() -> None:
    assert _dataset() == Dataset(
        name="reviews",
        source=Source(path="reviews.csv", key=("id",)),
        prompt=Prompt(system="You label reviews.", template="Review: {{ review }}"),
        llm=Llm(
            provider="openai_compatible",
            name="my-model",
            base_url="http://127.0.0.1:8000/v1",
            prices=DeclaredPrices(
                input_per_million_usd=Decimal("0.15"), output_per_million_usd=Decimal("0.60")
            ),
        ),
        output=Output(
            fields={
                "label": OutputField(type="string", enum=("good", "bad")),
                "score": OutputField(type="integer", minimum=0, maximum=10),
                "note": OutputField(type="string", required=False),
            }
        ),
    )


def test_prices_are_exact() -> None:
    prices = _llm(prices={"input_per_million_usd": 0.1, "output_per_million_usd": 3}).prices
    assert prices is not None
    assert prices.input_per_million_usd * 3 == Decimal("0.3")
    assert prices.per_request_usd == Decimal(0)


def test_prices_may_be_left_to_the_price_table() -> None:
    assert Dataset.model_validate(without("llm.prices")).llm.prices is None


@pytest.mark.parametrize("values", [attributes(), attributes(output={}), attributes(output={
    "column": "summary"}), without("llm.prices")])  # fmt: skip
def test_what_was_written_down_can_be_read_back(values: dict[str, Any]) -> None:
    dataset = Dataset.model_validate(values)
    assert Dataset.model_validate(dataset.model_dump()) == dataset
    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset


def test_a_declaration_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _dataset().limits.concurrency = 3


def test_output_columns_are_in_declared_order_and_under_their_own_names() -> None:
    values = changed("output.fields.score.column", "stars")
    assert Dataset.model_validate(values).output_columns() == ("label", "stars", "note")
    assert _dataset(output={}).output_columns() == ("response",)
    assert _dataset(output={"column": "summary"}).output_columns() == ("summary",)


def test_two_fields_may_swap_their_names() -> None:
    fields = {
        "a": {"type": "string", "column": "b"},
        "b": {"type": "string", "column": "a"},
    }
    assert _dataset(output={"fields": fields}).output_columns() == ("b", "a")


def test_the_reserved_columns_are_those_that_the_product_adds() -> None:
    assert _dataset().reserved_columns() == RESERVED_COLUMNS
    assert all(column.startswith("_") for column in RESERVED_COLUMNS)


def test_the_model_is_remembered_by_its_name_or_by_its_identity() -> None:
    assert _llm().model_identity == "openai_compatible/my-model"
    assert _llm(identity="llama-3").model_identity == "llama-3"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [(["a"], AcceptList), ({"pattern": "a+"}, AcceptPattern)],
)
def test_the_shape_of_accept_says_what_it_is(accept: Any, kind: type) -> None:
    field = OutputField.model_validate({"type": "string", "accept": accept})
    assert isinstance(field.accept, kind)


def test_accepted_values_and_bounds_keep_their_types() -> None:
    listed = OutputField.model_validate({"type": "boolean", "accept": [True]})
    assert isinstance(listed.accept, AcceptList)
    assert listed.accept.values == (True,)
    assert listed.accept.values[0] is True
    ranged = OutputField.model_validate({"type": "number", "accept": {"minimum": 1}})
    assert isinstance(ranged.accept, AcceptRange)
    assert isinstance(ranged.accept.minimum, int)


@pytest.mark.parametrize(
    "template",
    [
        "{{ review }}",
        "{% for word in review.split() %}{{ word | upper }}{% endfor %}",
        "{{ row['Review text'] }}",
        "no column at all",
        "{% raw %}{{ literal }}{% endraw %}",
    ],
)
def test_a_template_arrives_as_it_was_written(template: str) -> None:
    assert Prompt(template=template).template == template


@pytest.mark.behaviour("P-4")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://llm.example.com/v1", "https://llm.example.com/v1"),
        ("https://llm.example.com/v1/", "https://llm.example.com/v1"),
        ("https://llm.example.com///", "https://llm.example.com"),
        ("https://10.0.0.5:8443/v1", "https://10.0.0.5:8443/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.8.9.10/v1", "http://127.8.9.10/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("HTTP://LOCALHOST/v1", "HTTP://LOCALHOST/v1"),
    ],
)
def test_a_safe_address_is_taken_without_its_trailing_slash(written: str, meant: str) -> None:
    assert _llm(base_url=written).base_url == meant


@pytest.mark.behaviour("P-4")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://llm.example.com/v1", "must start with https://"),
        ("http://10.0.0.5/v1", "must start with https://"),
        ("http://0.0.0.0:8000/v1", "must start with https://"),
        ("http://localhost.example.com/v1", "must start with https://"),
        ("http://127.0.0.1.example.com/v1", "must start with https://"),
        ("http://2130706433/v1", "must start with https://"),
        ("https://user:hunter2@example.com/v1", "holds a user name or password"),
        ("https://hunter2@example.com/v1", "holds a user name or password"),
        ("http://localhost@example.com/v1", "holds a user name or password"),
        ("https://example.com/v1?key=hunter2", "has a query or fragment"),
        ("https://example.com/v1#hunter2", "has a query or fragment"),
        ("ftp://example.com/v1", "it must be a URL such as"),
        ("example.com/v1", "it must be a URL such as"),
        ("https:///v1", "it must be a URL such as"),
        ("https://example.com:0/v1", "is not a URL"),
        ("https://example.com:99999/v1", "is not a URL"),
        ("https://exa mple.com/v1", "is not a URL"),
        ("https://example.com/v1\n", "is not a URL"),
        ("https://example.com\\@evil.com/v1", "is not a URL"),
        ("https://[::1/v1", "is not a URL"),
    ],
)
def test_an_unsafe_address_is_refused_without_telling_its_secrets(
    address: str, reason: str
) -> None:
    problem = only_problem(changed("llm.base_url", address))
    assert reason in problem.message
    assert "hunter2" not in problem.message
