"""JSON sources: every value as it is, or an error that says where."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Source
from ondine_dagster.storage.sources import read_source, source_columns

NASTY = [
    {"id": 1, "text": 'say "hi"\nтекст 👩‍👩‍👧', "big": 2**53 + 1, "share": 0.1, "yes": True},
    {"id": 2, "text": "", "big": -(2**63), "share": 1e300, "yes": None, "late": "שלום"},
    {"id": 3, "text": None, "big": 2**63 - 1, "share": -0.0, "yes": False, "late": None},
]


def read(path: Path) -> list[dict[str, Any]]:
    source = Source(path=path.name)
    table = read_source(source, path)
    assert table.column_names == source_columns(source, path)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def as_lines(items: list[Any], **options: Any) -> str:
    return "\n".join(json.dumps(item, **options) for item in items)


EXPECTED = [{"late": None, **row} for row in NASTY]


@pytest.mark.parametrize("escaped", [True, False])
def test_lines_and_lists_come_as_they_are(tmp_path: Path, escaped: bool) -> None:
    lines, whole = tmp_path / "x.jsonl", tmp_path / "x.json"
    lines.write_text(as_lines(NASTY, ensure_ascii=escaped) + "\n\n", encoding="utf-8")
    whole.write_text(json.dumps(NASTY, ensure_ascii=escaped, indent=2), encoding="utf-8-sig")
    packed = tmp_path / "x.ndjson.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    assert read(lines) == read(whole) == read(packed) == EXPECTED


def test_nested_and_mixed_values_become_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    items = [
        {"tags": ["é", 1], "code": 7, "n": 1, "huge": 2**70},
        {"tags": {"a": None}, "code": "7b", "n": 0.5, "huge": 1},
        {"tags": None, "code": None, "n": None, "huge": None},
    ]
    path.write_text(as_lines(items))
    assert read(path) == [
        {"tags": '["é", 1]', "code": "7", "n": 1.0, "huge": str(2**70)},
        {"tags": '{"a": null}', "code": "7b", "n": 0.5, "huge": "1"},
        {"tags": None, "code": None, "n": None, "huge": None},
    ]


def test_whole_numbers_that_a_fraction_cannot_hold_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(as_lines([{"n": 2**53 + 1}, {"n": 0.5}]))
    assert [row["n"] for row in read(path)] == [str(2**53 + 1), "0.5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": }\n', "line 2 is no JSON: .* at column 7"),
        ("x.jsonl", '{"a": 1}\n\n[1]\n', r"line 3: a row must be an object, .* '\[1\]'"),
        ("x.jsonl", '{"a": NaN}\n', "line 1 cannot be read: NaN is no JSON"),
        ("x.jsonl", '{"a": 1, "a": 2}\n', "line 1 cannot be read: the key 'a' stands twice"),
        ("x.jsonl", '{"a": "\\ud83d"}\n', "line 1 holds half of a surrogate pair"),
        ("x.jsonl", '{"": 1}\n', "line 1: a key is empty"),
        ("x.jsonl", "\n", "holds no object"),
        ("x.json", '{"a": 1}', "holds no list"),
        ("x.json", '[{"a": 1},\n {"a": 1,}]', "is no JSON: .* at line 2, column"),
        ("x.json", '[{"a": 1}, 2]', "item 2: a row must be an object"),
        ("x.json", "[" * 100_000, "cannot be read"),
        ("x.jsonl", '{"a": 1}\n{"a": [1e400]}\n', "line 2 cannot be read: 1e400 is too large"),
        ("x.jsonl", '[{"a": 1}]\n', r"line 1: .* list of objects ends in \.json\."),
        ("x.jsonl", '{\n "a": 1\n}\n', r"line 1 is no JSON: .* An object stands in one line"),
        ("x.json", '{"a": 1}\n{"a": 2}\n', r"in each line ends in \.jsonl\."),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(OndineError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'\n{"a": "\xff"}\n')
    with pytest.raises(OndineError, match="line 2: the byte 0xFF is not UTF-8"):
        read(path)
    path.write_bytes('{"a": "ok"}\n'.encode("utf-16")[:-1])
    with pytest.raises(OndineError, match=r"cannot be read: .*truncated data"):
        read(path)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.lists(st.dictionaries(st.text(min_size=1), _VALUES | st.lists(_VALUES)), max_size=4))
def test_no_row_is_lost_and_nothing_crashes(
    tmp_path_factory: pytest.TempPathFactory, items: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.jsonl"
    path.write_text(as_lines(items), encoding="utf-8")
    try:
        rows = read(path)
    except OndineError as refused:
        assert re.search("surrogate|no object|cannot be read|a key is empty", str(refused))
    else:
        assert len(rows) == len(items)
        for row, item in zip(rows, items, strict=True):
            assert {k for k, v in row.items() if v is not None} == {
                k for k, v in item.items() if v is not None
            }
