"""Contents that no client can use, whatever the wire format around them. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ondine_dagster.simulator.packs import PACK_CONTENTS


def half(text: str) -> str:
    """Return the first half of the text."""
    return text[: len(text) // 2]


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object that `text` is, empty where it is none."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _nan(text: str) -> str:
    """Put NaN where the first number of the answer stands, else where its first value stands."""
    document = _object(text)
    if not document:
        return "NaN"
    numbers = [key for key, value in document.items() if type(value) in (int, float)]
    document[(numbers or list(document))[0]] = float("nan")
    return json.dumps(document, ensure_ascii=False)


def _duplicate_key(text: str) -> str:
    document = _object(text)
    if not document:
        return '{"answer": "one", "answer": "two"}'
    return f"{text.rstrip()[:-1]}, {json.dumps(next(iter(document)))}: null}}"


def _surrogate(escaped: bool) -> Callable[[str], str]:
    """Put a lone surrogate into the last text of the answer, escaped in the inner JSON or not."""

    def change(text: str) -> str:
        document = _object(text)
        texts = [key for key, value in document.items() if isinstance(value, str)]
        if not texts:
            return text + "\ud83d"
        document[texts[-1]] += "\ud83d"
        return json.dumps(document, ensure_ascii=escaped)

    return change


def _another(text: str) -> str:
    """Return another answer than `text`: as a model gives one at a temperature above 0."""
    document = _object(text)
    if not document:
        return f"{text} or not"
    return json.dumps({key: _other(value) for key, value in document.items()}, ensure_ascii=False)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value} or not" if isinstance(value, str) else value


# The faults that change the content of an answer, and nothing else of it.
CONTENTS: Mapping[str, Callable[[str], Any]] = {
    "null_content": lambda text: None,
    "blank_content": lambda text: " \n\t ",
    "non_string_content": lambda text: {"text": text},
    "wrong_schema": lambda text: '{"unexpected": ["shape"]}',
    "broken_content": half,
    "another_answer": _another,
    "nan": _nan,
    "duplicate_keys": _duplicate_key,
    "lone_surrogate": _surrogate(escaped=False),
    "escaped_surrogate": _surrogate(escaped=True),
    **PACK_CONTENTS,
}
