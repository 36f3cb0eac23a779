"""Clients for the tests of the simulator: a plain one, and a bare socket that sees TCP itself."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx

from ondine_dagster.simulator import Simulator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["positive", "negative", "neutral"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "summary": {"type": "string"},
    },
}


def body(text: str, *, schema: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """Return a chat request with one user message."""
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
    if schema is not None:
        request["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        }
    return request | extra


class Clock:
    """A clock that a test sets; the start of a UTC day."""

    def __init__(self) -> None:
        self.now = 86_400.0 * 20_000

    def __call__(self) -> float:
        return self.now


def ask(simulator: Simulator, text: str, *, key: str | None = None, **extra: Any) -> httpx.Response:
    """Ask one question on a connection of its own."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    url = f"{simulator.base_url}/chat/completions"
    return httpx.post(url, json=body(text, **extra), headers=headers)


def content(response: httpx.Response) -> Any:
    """Return the content of the first choice."""
    return response.json()["choices"][0]["message"]["content"]


def open_socket(simulator: Simulator) -> socket.socket:
    """Connect to the simulator with a bare socket."""
    address = urlsplit(simulator.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port), timeout=10)


def head(length: int) -> bytes:
    """Return the head of a chat request with a body of `length` bytes."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: simulator\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % length
    )


def send(connection: socket.socket, text: str) -> None:
    """Send one chat request over a bare socket."""
    data = json.dumps(body(text)).encode()
    connection.sendall(head(len(data)) + data)
