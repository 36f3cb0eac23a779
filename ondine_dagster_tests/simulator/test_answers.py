"""The simulated model's answers: they fit the schema, follow a token, and suit the text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ondine_dagster.simulator import answer

SENTIMENT = {"type": "string", "enum": ["positive", "negative", "neutral"]}
TOPIC = {
    "type": "string",
    "enum": ["quality", "delivery", "price", "service", "ease_of_use", "comfort", "other"],
}


def _ask(text: str, schema: dict[str, Any] | None) -> str:
    system = {"role": "system", "content": "Label it: great, terrible, delivery, price."}
    return answer([system, {"role": "user", "content": text}], schema)


def _field(text: str, schema: dict[str, Any]) -> Any:
    return json.loads(_ask(text, {"type": "object", "properties": {"x": schema}}))["x"]


def test_a_token_decides_every_value() -> None:
    h = int.from_bytes(hashlib.sha256(b"row-17").digest(), "big")
    schema = {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["a", "b", "c", "d", "e"]},
            "score": {"type": "integer", "minimum": 3, "maximum": 9},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "flag": {"type": "boolean"},
            "note": {"type": ["string", "null"]},
        },
    }
    assert json.loads(_ask("I love it [[token=row-17]]", schema)) == {
        "label": "abcde"[h % 5],
        "score": 3 + h % 7,
        "share": (h % 1001) / 1000,
        "flag": h % 2 == 1,
        "note": "row-17",
    }


def test_a_token_alone_is_the_answer_without_a_schema() -> None:
    assert _ask("hello [[token=row-17]] [[fault=429 times=1]]", None) == "row-17"


def test_different_tokens_spread_over_an_enum() -> None:
    got = {_field(f"[[token={n}]]", {"enum": list(range(20))}) for n in range(400)}
    assert got == set(range(20))


def test_only_the_last_user_message_is_read() -> None:
    messages = [
        {"role": "user", "content": "[[token=example]]"},
        {"role": "assistant", "content": "example"},
        {"role": "user", "content": "[[token=question]]"},
    ]
    assert answer(messages, None) == "question"


def test_content_in_parts_is_read() -> None:
    parts = [{"type": "text", "text": "[[token=part]]"}, {"type": "image_url"}]
    assert answer([{"role": "user", "content": parts}], None) == "part"


@pytest.mark.parametrize(
    ("text", "sentiment", "topic"),
    [
        ("The battery died after a week.", "negative", "quality"),
        ("Excellent sound, I love it!", "positive", "quality"),
        ("The parcel arrived two weeks late.", "negative", "delivery"),
        ("A bargain at that price.", "positive", "price"),
        ("Very helpful customer service, thank you.", "positive", "service"),
        ("My back doesn't hurt any more, so comfortable.", "positive", "comfort"),
        ("It is a box.", "neutral", "other"),
        ("Die Lieferung kam zu spät, der Karton war aufgerissen.", "negative", "delivery"),
        ("Le service client ne répond jamais.", "negative", "service"),
        ("Muy fácil de configurar.", "positive", "ease_of_use"),
        ("音質がとても良く、満足です。", "positive", "quality"),
        ("快递太慢，盒子都破了。", "negative", "delivery"),
        ("Отличное качество, рекомендую!", "positive", "quality"),
        ("السعر غالي جدا.", "negative", "price"),
        ("बहुत खराब क्वालिटी।", "negative", "quality"),
    ],
)
def test_labels_suit_the_text_in_many_languages(text: str, sentiment: str, topic: str) -> None:
    assert _field(f"Product: Thing\nReview: {text}", SENTIMENT) == sentiment
    assert _field(f"Product: Thing\nReview: {text}", TOPIC) == topic


def test_numbers_go_with_the_mood() -> None:
    stars = {"type": "integer", "minimum": 1, "maximum": 5}
    good = _field("Great, perfect, I love it.", stars)
    bad = _field("Terrible. Broken. Useless.", stars)
    assert bad < _field("A box.", stars) == 3 < good <= 5
    assert _field("Great, perfect, I love it.", {"enum": [1, 2, 3, 4, 5]}) >= 4


def test_urgency_goes_with_the_mood_in_whatever_order_it_is_declared() -> None:
    priority = {"enum": ["high", "low", "medium"]}
    assert _field("Terrible! Broken! Dangerous! Useless!", priority) == "high"
    assert _field("Great, perfect, I love it, thank you.", priority) == "low"
    assert _field("A box.", priority) == "medium"


def test_an_enum_of_other_words_is_chosen_by_common_words() -> None:
    intents = {"enum": ["card_arrival", "exchange_rate", "lost_or_stolen_phone", "top_up_failed"]}
    assert _field("My new card has still not arrived.", intents) == "card_arrival"
    assert _field("Somebody has stolen my phone!", intents) == "lost_or_stolen_phone"


def test_a_summary_is_the_telling_sentence_of_the_text() -> None:
    text = "Product: Desk lamp\nReview: We bought it in May. It flickers and hums. It is grey."
    assert _field(text, {"type": "string"}) == "It flickers and hums."
    assert len(_field("word " * 200, {"type": "string"})) <= 121


def test_nested_objects_lists_references_and_unions_are_filled() -> None:
    schema = {
        "$defs": {"part": {"type": "object", "properties": {"n": {"const": 7}}}},
        "type": "object",
        "properties": {
            "part": {"$ref": "#/$defs/part"},
            "either": {"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 3}]},
            "many": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "nothing": {"type": "null"},
            "below": {"type": "integer", "maximum": -5},
            "short": {"type": "string", "maxLength": 4},
        },
    }
    got = json.loads(_ask("I love this thing.", schema))
    assert got["part"] == {"n": 7}
    assert 0 <= got["either"] <= 3
    assert got["many"] == [True, True]
    assert got["nothing"] is None
    assert -15 <= got["below"] <= -5
    assert len(got["short"]) == 4


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tree = {"$defs": {"t": {"properties": {"child": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}
    assert json.loads(_ask("hello", tree))["child"]


def test_equal_questions_get_equal_answers() -> None:
    schema = {"type": "object", "properties": {"s": SENTIMENT, "t": TOPIC}}
    assert len({_ask("Nice, but late.", schema) for _ in range(3)}) == 1
