"""Whatever a model writes: no answer crashes the splitter, and no row gets what is not its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondine_dagster.llm.packing import Packing, Split
from ondine_dagster.llm.registry import PackKind, build_packing
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.simulator.packs import Pack, read_pack

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "stars": {"type": ["integer", "null"]},
        "share": {"type": "number"},
        "flag": {"type": "boolean"},
    },
    "required": ["label", "stars", "share", "flag"],
    "additionalProperties": False,
}
# no time of the wall clock decides
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CODES = ["bcd", "fgh", "jkm", "npq"]
KINDS: list[PackKind] = ["json", "csv"]
PACKINGS = {kind: build_packing(kind, SCHEMA) for kind in KINDS}
PLAIN = {kind: build_packing(kind, None) for kind in KINDS}

# characters that formats are made of, beside any others
_TEXT = st.text("ab\"',;\\{}[]:\n\r\t `<>0é日😀\x00\x85\u2028", max_size=12)
_ROW = st.fixed_dictionaries(
    {
        "label": _TEXT,
        "stars": st.none() | st.integers(-(2**63), 2**63 - 1),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
    }
)
_ROWS = st.lists(_ROW, min_size=len(CODES), max_size=len(CODES))


def honest(packing: Packing, rows: list[Any]) -> str:
    """Return how the simulated model writes these answers down."""
    messages = json.loads(packing.compose("[", [(code, code) for code in CODES]))
    pack = read_pack(messages[-1]["content"], packing.schema)
    assert isinstance(pack, Pack)
    return pack.written(rows)


def whole(split: Split) -> None:
    """Fail unless each row is answered or not, and not both."""
    assert split.answers.keys() | split.problems.keys() == set(CODES)
    assert not split.answers.keys() & split.problems.keys()


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(_TEXT, min_size=2, max_size=2), ends=st.tuples(_TEXT, _TEXT))
@EXAMPLES
def test_texts_arrive_as_they_are(kind: PackKind, texts: list[str], ends: tuple[str, str]) -> None:
    packing = build_packing(kind, SCHEMA, StaticText(*ends))
    items = list(zip(CODES, (f"{ends[0]}{text}{ends[1]}" for text in texts), strict=False))
    asked = json.loads(packing.compose("[", items))[-1]["content"]
    pack = read_pack(asked, packing.schema)
    assert pack is not None
    assert [code for code, _ in pack.items] == CODES[:2]
    assert [text for _, text in pack.items] == texts


@given(cells=st.lists(st.tuples(_TEXT, _TEXT), min_size=2, max_size=2), between=_TEXT)
@EXAMPLES
def test_columns_arrive_as_they_are(cells: list[tuple[str, str]], between: str) -> None:
    between = between or "-"
    packing = build_packing("csv", SCHEMA, StaticText("<", ">", ("a", "b"), (between,)))
    items = [(code, f"<{a}{between}{b}>") for code, (a, b) in zip(CODES, cells, strict=False)]
    asked = json.loads(packing.compose("[", items))[-1]["content"]
    pack = read_pack(asked, packing.schema)
    assert pack is not None
    read = [text for _, text in pack.items]
    whole = [f"{a}{between}{b}" for a, b in cells]  # where one of them could be read in two ways
    assert read in ([f"{a}\n{b}" for a, b in cells], whole)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=_ROWS)
@EXAMPLES
def test_answers_arrive_as_they_are(kind: PackKind, rows: list[Any]) -> None:
    packing = PACKINGS[kind]
    split = packing.split(honest(packing, rows), CODES, cut=False)
    assert split.problems == {}
    assert [json.loads(split.answers[code]) for code in CODES] == rows


@pytest.mark.parametrize("kind", KINDS)
@given(rows=_ROWS, data=st.data())
@EXAMPLES
def test_an_answer_that_is_cut_anywhere_has_whole_rows_only(
    kind: PackKind, rows: list[Any], data: st.DataObject
) -> None:
    packing = PACKINGS[kind]
    text = honest(packing, rows)
    text = text[: data.draw(st.integers(0, len(text)))]
    for cut in (True, False):
        split = packing.split(text, CODES, cut=cut)
        whole(split)
        # where nobody says that it was cut, the last line of a table may be whole
        sure = CODES if cut or kind == "json" else CODES[:-1]
        for code, row in zip(sure, rows, strict=False):
            if code in split.answers:
                assert json.loads(split.answers[code]) == row


@pytest.mark.parametrize("kind", KINDS)
@given(rows=_ROWS, more=_TEXT, data=st.data())
@EXAMPLES
def test_no_damage_crashes_the_splitter(
    kind: PackKind, rows: list[Any], more: str, data: st.DataObject
) -> None:
    text = honest(PACKINGS[kind], rows)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    again = text[start:end] if data.draw(st.booleans()) else ""
    for damaged in (text[:start] + more + again + text[end:], more, text + again):
        whole(PACKINGS[kind].split(damaged, CODES, cut=False))
        whole(PLAIN[kind].split(damaged, CODES, cut=True))
