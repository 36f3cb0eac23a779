"""A reply as bytes, and the provider's own JSON error. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

Payload = dict[str, Any]
Header = tuple[bytes, bytes]

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_JSON: Header = (b"content-type", b"application/json")
_HTML: Header = (b"content-type", b"text/html; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers without the length, and body."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = (_JSON,)

    def header_list(self) -> list[Header]:
        """The headers with the true Content-Length."""
        return [*self.headers, (b"content-length", b"%d" % len(self.body))]

    def with_headers(self, more: Iterable[Header]) -> Reply:
        """Return the same reply with more headers."""
        return replace(self, headers=(*self.headers, *more))


def json_reply(status: int, document: Any) -> Reply:
    """Return `document` as JSON in ASCII, lone surrogates escaped."""
    return Reply(status, _COMPACT.encode(document).encode("ascii"))


def html_reply(status: int) -> Reply:
    """Return the page of a gateway."""
    return Reply(status, b"<html><body><h1>Bad gateway</h1></body></html>", (_HTML,))


def error_object(kind: str, code: str | None, message: str) -> Payload:
    """Return an error in the provider's own shape."""
    return {"message": message, "type": kind, "param": None, "code": code}
