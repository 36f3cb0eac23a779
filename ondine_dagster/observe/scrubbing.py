"""Where texts are scrubbed before they leave: inside of messages, whatever their JSON escapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode


def scrubbed_messages(messages: str, scrub: Callable[[str], str]) -> str:
    """Return messages (JSON) with every text in them scrubbed."""
    if "\\" not in messages:  # then the JSON reads as its texts do
        return scrub(messages)
    found = json.loads(messages)
    clean = _scrubbed(found, scrub)
    return messages if clean == found else _TO_JSON(clean)


def _scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    if type(value) is str:
        return scrub(value)
    if type(value) is dict:
        return {
            name: one if name == "role" else _scrubbed(one, scrub) for name, one in value.items()
        }
    return [_scrubbed(one, scrub) for one in value] if type(value) is list else value
