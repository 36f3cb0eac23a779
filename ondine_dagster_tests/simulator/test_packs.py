"""Requests for many rows: each is answered by its own code, and damaged on demand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ondine_dagster.llm.packing import ItemProblem, Split, new_codes
from ondine_dagster.llm.registry import build_packing
from ondine_dagster.simulator import Simulator, answer
from ondine_dagster.simulator.packs import PACK_CONTENTS
from ondine_dagster_tests.simulator.clients import SCHEMA, ask, content

ROW = {**SCHEMA, "required": [*SCHEMA["properties"]], "additionalProperties": False}
TOKENS = [f"t{number}" for number in range(7)]
CODES = new_codes(len(TOKENS))
PACKING = build_packing("json", ROW)


def pack(fault: str = "", tokens: list[str] = TOKENS, packing: Any = PACKING) -> str:
    """Return a user message that asks about rows with these tokens."""
    texts = [f'He said "x", [[token={token}]]\n{fault}' for token in tokens]
    text: str = json.loads(packing.compose("[", list(zip(CODES, texts, strict=False))))[0][
        "content"
    ]
    return text


def split(simulator: Simulator, fault: str = "", packing: Any = PACKING) -> Split:
    extra = {} if packing.schema is None else {"schema": packing.schema}
    response = ask(simulator, pack(f"[[fault={fault}]]" if fault else "", packing=packing), **extra)
    cut = response.json()["choices"][0]["finish_reason"] == "length"
    found: Split = packing.split(content(response), CODES, cut=cut)
    return found


def wanted(token: str, schema: Any = ROW) -> Any:
    text = answer([{"role": "user", "content": f"[[token={token}]]"}], schema)
    return text if schema is None else json.loads(text)


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize("schema", [ROW, None], ids=["fields", "text"])
def test_each_row_gets_the_answer_that_it_would_get_alone(
    simulator: Simulator, kind: Any, schema: Any
) -> None:
    found = split(simulator, packing=build_packing(kind, schema))
    assert found.problems == {}
    for code, token in zip(CODES, TOKENS, strict=True):
        text = found.answers[code]
        assert (text if schema is None else json.loads(text)) == wanted(token, schema)


H, M = "answered", ItemProblem.MISSING
FAULTS = {
    "pack_missing": [H, M, H, H, M, H, H],
    "pack_repeated": [H, ItemProblem.REPEATED, H, H, ItemProblem.REPEATED, H, H],
    "pack_reordered": [H] * 7,
    "pack_renumbered": [ItemProblem.UNKNOWN_CODE] * 7,
    "pack_strange": [ItemProblem.UNKNOWN_CODE, *[H] * 6],
    "pack_malformed": [H, ItemProblem.MALFORMED, *[H] * 5],
    "pack_prose": [H] * 7,
    "length": [*[H] * 3, *[ItemProblem.CUT_OFF] * 4],
    "broken_content": [*[H] * 3, ItemProblem.MALFORMED, *[M] * 3],
    "wrong_schema": [M] * 7,
}


# half of the answer is fewer rows, as the first line is the header
IN_CSV = {
    "length": [*[H] * 2, *[ItemProblem.CUT_OFF] * 5],
    "broken_content": [*[H] * 2, ItemProblem.MALFORMED, *[M] * 4],
}


@pytest.mark.parametrize("kind", ["json", "csv"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_packs_hits_the_rows_that_it_names(
    simulator: Simulator, fault: str, kind: Any
) -> None:
    wanted_end = (IN_CSV if kind == "csv" and fault in IN_CSV else FAULTS)[fault]
    found = split(simulator, fault, build_packing(kind, ROW))
    assert [found.problems.get(code, H) for code in CODES] == wanted_end
    for code, token in zip(CODES, TOKENS, strict=True):
        if code in found.answers:
            assert json.loads(found.answers[code]) == wanted(token)


def test_every_fault_of_packs_is_tested_here() -> None:
    assert PACK_CONTENTS.keys() <= FAULTS.keys()


def test_an_answer_for_one_row_has_no_fault_of_packs(simulator: Simulator) -> None:
    for fault in FAULTS:
        if fault.startswith("pack_"):
            response = ask(simulator, f"[[token=a]] [[fault={fault}]]", schema=ROW)
            assert json.loads(content(response)) == wanted("a")


def test_the_bill_tells_which_rows_a_request_was_about(simulator: Simulator) -> None:
    ask(simulator, pack(), schema=PACKING.schema)
    ask(simulator, "[[token=t3]] again", schema=ROW)
    ask(simulator, "no token, " + "x" * 100)
    bill = simulator.bill.snapshot()
    assert bill.carried[:2] == [tuple(TOKENS), ("t3",)]
    assert bill.rows["t3"] == 2 and bill.rows["t4"] == 1
    assert [len(name) for name in bill.carried[2]] == [80]


def test_a_pack_has_one_place_on_the_bill_whatever_its_codes(simulator: Simulator) -> None:
    before = pack("[[fault=429 times=1]]")
    assert ask(simulator, before, schema=PACKING.schema).status_code == 429
    again = before
    for code, other in zip(CODES, new_codes(400)[-7:], strict=True):
        again = again.replace(f'"{code}"', f'"{other}"')
    assert again != before
    assert ask(simulator, again, schema=PACKING.schema).status_code == 200
    assert [line.requests for line in simulator.bill.snapshot().prompts.values()] == [2]
