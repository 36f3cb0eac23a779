"""A password that a declaration holds is in no text that is made of the declaration."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ondine_dagster.spec import Dataset, format_errors
from ondine_dagster_tests.spec.declarations import attributes

CANARY = "dontkeep-me-7731"
_DATABASE = f"postgresql://bob:{CANARY}@localhost/shop"
_OPTION = f"postgresql://localhost/shop?password={CANARY}"
_HOST = f"http://bob:{CANARY}@127.0.0.1/v1"
_LLM = attributes()["llm"]


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    "sections",
    [
        {"source": {"database": _DATABASE, "table": "t", "key": "id"}},
        {"source": {"database": _OPTION, "table": "t", "key": "id"}},
        {"export": {"to": _DATABASE, "table": "t"}},
    ],
    ids=["source", "option of the source", "export"],
)
def test_a_password_that_is_taken_is_in_no_text_of_the_declaration(sections: Any) -> None:
    dataset = Dataset.model_validate(attributes(**sections))
    plain = dataset.model_dump(mode="json")
    for text in (
        repr(dataset),
        str(dataset.source) + str(dataset.export),
        str(dataset.model_dump()),
        yaml.safe_dump(plain),
        dataset.model_dump_json(),
    ):
        assert CANARY not in text


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    "sections",
    [
        {"source": {"path": f"s3://key:{CANARY}@bucket/x.csv", "key": "id"}},
        {"llm": {**_LLM, "base_url": _HOST}},
        {"llm": {**_LLM, "headers": {"Authorization": f"Bearer {CANARY}"}}},
        {"llm": {**_LLM, "api_key": CANARY}},
        {"source": {"database": f"nothing://bob:{CANARY}@h/x", "table": "t"}},
        {"name": _HOST},
        {"name": f"sk-{CANARY}"},
    ],
    ids=["path", "base_url", "headers", "api_key", "database", "URL as name", "key as name"],
)
def test_a_refusal_does_not_repeat_the_password(sections: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        Dataset.model_validate(attributes(**sections))
    told = [one.message for one in format_errors(raised.value)]
    assert told
    for text in (*told, str(raised.value), "".join(traceback.format_exception(raised.value))):
        assert CANARY not in text
