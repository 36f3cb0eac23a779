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
    found, changed = json.loads(messages), False
    for message in found:
        for name, value in message.items():
            if name != "role":
                clean = scrub(value) if type(value) is str else _scrubbed(value, scrub)
                if clean != value:
                    message[name], changed = clean, True
    return _TO_JSON(found) if changed else messages


def _scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {name: _scrubbed(one, scrub) for name, one in value.items()}
    return [_scrubbed(one, scrub) for one in value] if isinstance(value, list) else value
