"""OpenRouter tells of a key, and its list of models is kept for when it is down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ondine_dagster.engine.catalogue import TTL_SECONDS, Catalogues
from ondine_dagster.engine.lookup import look_up
from ondine_dagster.engine.preflight import Checked, Preflight
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Llm, OutputField

NAME = "vendor/large"
ENTRY = {
    "id": NAME,
    "context_length": 8000,
    "supported_parameters": ["temperature", "max_tokens", "structured_outputs"],
}


@pytest.fixture
def openrouter() -> Iterator[Simulator]:
    with Simulator(shape="openrouter") as simulator:
        simulator.settings = replace(simulator.settings, models=(ENTRY,))
        yield simulator


@pytest.fixture
def look(openrouter: Simulator, tmp_path: Path) -> Callable[..., Checked]:
    """Return a function that looks a model up as a new process does."""

    def looked(*keys: str, **more: Any) -> Checked:
        prices = {"input_per_million_usd": 1, "output_per_million_usd": 1}
        declared = {
            "provider": "openrouter",
            "name": NAME,
            "base_url": openrouter.base_url,
            "prices": prices,
            **more,
        }
        llm = Llm.model_validate(declared)
        fields = {"label": OutputField(type="string")}
        return Preflight(
            llm,
            build_provider(llm, wire_schema(fields)),
            [SecretStr(key) for key in keys or ("key-1234567890",)],
            Catalogues(tmp_path / "catalogues", look_up),
            asks=True,
            with_fields=True,
        ).look()

    return looked


@pytest.mark.behaviour("A-22")
def test_key_and_model_are_looked_up_and_what_is_left_is_told(
    look: Callable[..., Checked], openrouter: Simulator
) -> None:
    openrouter.settings = replace(openrouter.settings, credit_usd=Decimal("1.5"))
    checked = look()
    assert (checked.failure, checked.notes) == (None, [])
    assert (checked.context_window, checked.credit) == (8000, Decimal("1.5"))
    assert checked.listed is not None
    assert checked.listed.url == f"{openrouter.base_url}/models"
    assert openrouter.bill.totals.requests == 0


def test_a_key_without_a_limit_has_no_credit_to_tell_of(look: Callable[..., Checked]) -> None:
    assert look().credit is None


@pytest.mark.behaviour("A-22")
def test_a_key_whose_credit_is_used_up_stops_the_run(
    look: Callable[..., Checked], openrouter: Simulator
) -> None:
    openrouter.settings = replace(openrouter.settings, credit_usd=Decimal(0))
    failure = look().failure
    assert failure is not None
    assert (failure.error_class, failure.code) == (ErrorClass.EXHAUSTED, ErrorCode.KEY_BUDGET)


@pytest.mark.behaviour("P-9")
def test_a_key_that_is_refused_names_its_variable(
    look: Callable[..., Checked], openrouter: Simulator
) -> None:
    openrouter.settings = replace(openrouter.settings, api_key="the-good-one")
    failure = look("sk-or-canary-0123").failure
    assert failure is not None
    assert "OPENROUTER_API_KEY" in failure.message
    assert "canary" not in failure.message
    assert look("the-good-one").failure is None


@pytest.mark.behaviour("P-11")
def test_a_model_that_openrouter_does_not_list_stops_the_run(
    look: Callable[..., Checked], openrouter: Simulator
) -> None:
    failure = look(name="vendor/small").failure
    assert failure is not None
    assert "has no model vendor/small" in failure.message
    assert look(name=f"{NAME}:nitro").failure is None


def test_a_model_that_is_newer_than_the_list_is_found(
    look: Callable[..., Checked], openrouter: Simulator, tmp_path: Path
) -> None:
    look()
    age_lists(tmp_path, 3600)
    new = {**ENTRY, "id": "vendor/new"}
    openrouter.settings = replace(openrouter.settings, models=(ENTRY, new))
    assert look(name="vendor/new").failure is None


@pytest.mark.behaviour("A-24")
@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"seed": 7}, "takes no seed at openrouter: remove llm.seed"),
        ({"max_tokens": 8000}, "the context window of vendor/large is 8,000"),
        ({"structured": "json_object"}, "set llm.structured to json_schema"),
    ],
)
def test_what_the_model_does_not_take_is_refused_with_the_setting(
    look: Callable[..., Checked], more: dict[str, Any], advice: str
) -> None:
    failure = look(**more).failure
    assert failure is not None
    assert advice in failure.message


@pytest.mark.behaviour("A-23")
def test_the_list_of_an_earlier_run_is_used_while_openrouter_is_down_and_said_to_be_stale(
    look: Callable[..., Checked], openrouter: Simulator, tmp_path: Path
) -> None:
    first = look().listed
    age_lists(tmp_path, TTL_SECONDS + 3600)
    openrouter.outage("503")
    checked = look()
    assert checked.failure is None
    assert checked.context_window == 8000
    assert checked.listed is not None
    assert first is not None
    assert checked.listed.stale
    assert checked.listed.catalogue.sha256 == first.catalogue.sha256
    assert checked.notes[0] == "key and model could not be checked: HTTP 503"
    assert checked.notes[1].startswith("the list of models is stale: ")
    assert "7.0 h old, stale, sha256 " in checked.notes[1]
    assert look(seed=7).failure is not None  # what it says still holds


def test_without_any_list_nobody_is_stopped(
    look: Callable[..., Checked], openrouter: Simulator
) -> None:
    openrouter.outage("503")
    checked = look(context_window=123_456)
    assert (checked.failure, checked.context_window, checked.listed) == (None, 123_456, None)
    assert checked.notes[1] == f"{openrouter.base_url}/models gives no list of models: HTTP 503"


def age_lists(folder: Path, seconds: float) -> None:
    """Make the lists of a data folder as old as if they had been fetched long ago."""
    (file,) = (folder / "catalogues").iterdir()
    assert json.loads(file.read_text())["data"]
    then = time.time() - seconds
    os.utime(file, (then, then))
