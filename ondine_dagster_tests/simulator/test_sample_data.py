"""The sample dataset: real CSV with everything that breaks readers, and labels that make sense."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from ondine_dagster.simulator import answer

FILE = Path(__file__).parents[2] / "data" / "product_reviews.csv"
SCRIPTS = "LATIN CYRILLIC GREEK HEBREW ARABIC DEVANAGARI THAI HIRAGANA KATAKANA CJK HANGUL".split()
SENTIMENTS = ["positive", "negative", "neutral"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(FILE.read_bytes().decode("utf-8"), newline="")))


def test_the_columns_and_keys_are_complete(rows: list[dict[str, str]]) -> None:
    assert len(rows) >= 320
    assert list(rows[0]) == ["review_id", "product", "language", "rating_source", "review"]
    assert len({row["review_id"] for row in rows}) == len(rows)
    assert all(value for row in rows for value in row.values())
    assert {row["rating_source"] for row in rows} == {"web", "app", "email", "store"}


def test_the_file_is_plain_rfc_4180_in_utf_8(rows: list[dict[str, str]]) -> None:
    raw = FILE.read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert raw.endswith(b"\r\n")
    assert raw.count(b"\r\n") == len(rows) + 1
    assert raw.count(b"\r") == raw.count(b"\r\n")


def test_the_texts_hold_what_breaks_readers(rows: list[dict[str, str]]) -> None:
    texts = [row["review"] for row in rows]
    assert sum("\n" in text for text in texts) >= 3
    assert sum('"' in text for text in texts) >= 10
    assert sum("," in text for text in texts) >= 100
    assert any(text[0] in "=-+@" for text in texts)
    assert any(unicodedata.category(c) == "So" for text in texts for c in text)
    assert min(map(len, texts)) <= 3
    questions = Counter((row["product"], row["review"]) for row in rows)
    assert 3 <= sum(n - 1 for n in questions.values()) <= 20


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_occurs(rows: list[dict[str, str]], script: str) -> None:
    letters = {c for row in rows for c in row["review"] if c.isalpha()}
    assert any(unicodedata.name(c, "").startswith(script) for c in letters)


def test_the_labels_of_the_demo_are_spread_over_the_values(rows: list[dict[str, str]]) -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string", "enum": SENTIMENTS}}}
    labels = Counter(
        json.loads(answer([{"role": "user", "content": row["review"]}], schema))["s"]
        for row in rows
    )
    assert min(labels[name] for name in SENTIMENTS) >= 30
