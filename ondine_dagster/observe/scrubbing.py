"""Where texts are scrubbed before they leave: inside of messages, whatever their JSON escapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def scrubbed_messages(messages: str, scrub: Callable[[str], str]) -> str:
    """Return messages (JSON) with every text in them scrubbed."""
    if "\\" not in messages:  # then the JSON reads as its texts do
        return scrub(messages)
    return json.dumps(_scrubbed(json.loads(messages), scrub), ensure_ascii=False)


def _scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [_scrubbed(one, scrub) for one in value]
    if isinstance(value, dict):
        return {name: _scrubbed(one, scrub) for name, one in value.items()}
    return value
