"""Where texts are scrubbed before they leave: inside of messages, whatever their JSON escapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode


class Sent(NamedTuple):
    """What was sent for a row, scrubbed: its messages, and the same as JSON."""

    messages: list[dict[str, Any]]
    text: str


def scrubbed_messages(messages: str, scrub: Callable[[str], str]) -> Sent:
    """Return messages (JSON) with every text in them scrubbed, each by itself.

    Not the JSON as it stands: a pattern that begins with `^` would find nothing in it.
    """
    found, changed = json.loads(messages), False
    for message in found:
        for name, value in message.items():
            if name != "role":
                clean = scrub(value) if type(value) is str else scrubbed(value, scrub)
                if clean != value:
                    message[name], changed = clean, True
    return Sent(found, _TO_JSON(found) if changed else messages)


def scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    """Return a value with every text in it scrubbed, and a whole number that is itself found."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {name: scrubbed(one, scrub) for name, one in value.items()}
    if isinstance(value, list):
        return [scrubbed(one, scrub) for one in value]
    if type(value) is int and (text := scrub(str(value))) != str(value):
        return text
    return value
