"""Packs on every wire and in every way of asking for fields: each row gets its own answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.packing import new_codes, packable
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Completion
from ondine_dagster.llm.registry import build_packing, build_provider
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import answer
from ondine_dagster.spec import Llm, Output
from ondine_dagster_tests.llm.contract.conftest import FIELDS, KEY, SYSTEM, Contract

OUTPUT = Output.model_validate({"fields": FIELDS})
TOKENS = ["a", "ж", "日本", "😀", 'q"']
MODES = ["json_schema", "tools", "json_object", "prompt"]


def ask(contract: Contract, kind: Any, schema: Any, mode: str) -> dict[str, str]:
    """Send a pack of rows with these tokens; return what each was answered, by its token."""
    packing = build_packing(kind, schema, StaticText("Review: ", ""))
    changes = {"structured": mode, "max_tokens": 2000}
    llm = Llm.model_validate(contract.row.declared(contract.simulator.base_url) | changes)
    provider = build_provider(llm, packing.schema)
    asked = [messages_json(SYSTEM, f"Review: [[token={token}]]\n") for token in TOKENS]
    rows = [row for one in asked if (row := packable(one)) is not None]
    (prefix,) = {row.prefix for row in rows}
    codes = new_codes(len(TOKENS))
    items = [(code, row.text) for code, row in zip(codes, rows, strict=True)]
    messages = packing.compose(prefix, items)
    sent = provider.body(messages, provider.ceiling)
    reply = httpx.post(provider.url, content=sent, headers=provider.headers(SecretStr(KEY)))
    read = provider.parse(reply.status_code, reply.headers, reply.content)
    assert isinstance(read, Completion) and read.code is None, read
    assert read.usage.prompt_tokens is not None
    assert read.usage.prompt_tokens <= provider.prompt_tokens_bound(messages)
    split = packing.split(read.text, codes, cut=False)
    assert split.problems == {}
    return {token: split.answers[code] for code, token in zip(codes, TOKENS, strict=True)}


@pytest.mark.parametrize("mode", MODES)
def test_the_fields_of_each_row_come_back_in_every_mode(contract: Contract, mode: str) -> None:
    if (contract.row.provider, mode) == ("anthropic", "json_object"):
        pytest.skip("has no such mode")
    schema = wire_schema(OUTPUT.fields)
    found = ask(contract, "json", schema, mode)
    for token, text in found.items():
        asked = [{"role": "user", "content": f"[[token={token}]]"}]
        assert AnswerReader(OUTPUT).read(text) == json.loads(answer(asked, schema))


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_plain_answers_come_back_too(contract: Contract, kind: Any) -> None:
    found = ask(contract, kind, None, "json_schema")
    assert found == {token: token for token in TOKENS}
