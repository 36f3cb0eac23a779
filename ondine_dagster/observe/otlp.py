"""OTLP over HTTP: spans as protobuf, posted with a deadline, and what the host said of them.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. Spans are posted here and not by an SDK: there
is no queue that could overflow, no global tracer that could be another's, and each post has an
answer.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ondine_dagster.engine.transport import tls_context
from ondine_dagster.llm.retry_after import retry_after_seconds
from ondine_dagster.observe.destination import (
    BASE_URL,
    ENDPOINT,
    HEADERS,
    PUBLIC_KEY,
    SECRET_KEY,
    Destination,
)
from ondine_dagster.observe.encoding import encode, rejected
from ondine_dagster.observe.spans import Span

if TYPE_CHECKING:
    import httpx

_CONTENT = frozenset({400, 413, 422})  # the host does not take these very spans
_AGAIN = frozenset({429, 502, 503, 504})
_GZIP_LEVEL = 1  # attributes are much alike: more gains little
_MAX_REPLY_BYTES = 2**16
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Delivered:
    """The host took the spans, but for `rejected` of them, of which it has `said` why."""

    rejected: int = 0
    said: str = ""

    @property
    def why(self) -> str:
        """Return what the host did, as people read it behind its address."""
        said = " ".join(self.said.split())[:_LONGEST_REASON]
        return f"takes only some spans{': ' * bool(said)}{said}"


@dataclass(frozen=True, slots=True)
class Refused:
    """The host does not take what was sent: other spans may be welcome."""

    why: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nothing can be sent now; `soon` where trying again may help, after `after` seconds."""

    why: str
    soon: bool = False
    after: float | None = None


Answer = Delivered | Refused | Unavailable


class OtlpHttp:
    """Posts spans to one host. For one thread; close it."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        headers = {name: one.get_secret_value() for name, one in self._destination.headers.items()}
        return httpx.Client(
            headers={
                **headers,
                "content-type": "application/x-protobuf",
                "content-encoding": "gzip",
                "user-agent": "ondine-dagster",
            },
            follow_redirects=False,
            # one for the process, and none where it is not used: it takes time to make
            verify=tls_context() if self._destination.url.startswith("https:") else False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    def post(self, spans: Sequence[Span], seconds: float) -> Answer:
        """Send spans and return what the host says, within about `seconds`."""
        import httpx

        body = gzip.compress(encode(spans, self._destination.service_name), _GZIP_LEVEL)
        until = time.monotonic() + seconds
        try:
            with self._client.stream(
                "POST", self._destination.url, content=body, timeout=seconds
            ) as reply:
                return self._understood(reply, _read(reply, until))
        except httpx.TimeoutException:
            return Unavailable(f"no answer within {seconds:.0f} s")
        except httpx.ConnectError as error:  # the words of the system, before a header is sent
            said = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
            return Unavailable(f"cannot be reached: {said}")
        except httpx.HTTPError as error:  # the text of others may hold a header
            return Unavailable(f"cannot be reached: {type(error).__name__}")

    def _understood(self, reply: httpx.Response, body: bytes) -> Answer:
        status = reply.status_code
        if 200 <= status < 300:
            return _partial_success(reply.headers.get("content-type", ""), body)
        said = f"answers {status}"
        if status in _CONTENT:
            return Refused(said)
        langfuse = self._destination.kind == "langfuse"
        if status in (401, 403):
            keys = f"{PUBLIC_KEY} and {SECRET_KEY}" if langfuse else HEADERS
            return Unavailable(f"{said}: see {keys}")
        if reply.is_redirect or status in (404, 405):
            what = ", which is not followed" if reply.is_redirect else ""
            return Unavailable(f"{said}{what}: see {BASE_URL if langfuse else ENDPOINT}")
        after = retry_after_seconds({k.lower(): v for k, v in reply.headers.items()})
        if after is not None:
            said = f"{said} and asks to wait for {after:.0f} s"
        return Unavailable(said, soon=status in _AGAIN, after=after)


def _read(reply: httpx.Response, until: float) -> bytes:
    """Return the body as far as it comes in time: no more than a few words are expected."""
    body = b""
    for piece in reply.iter_bytes():
        body += piece
        if len(body) > _MAX_REPLY_BYTES or time.monotonic() > until:
            break
    return body


def _partial_success(content_type: str, body: bytes) -> Delivered:
    """Return how many spans a host has dropped that says 200."""
    try:
        if "json" in content_type:
            told: Any = json.loads(body or b"{}")
            partial = told.get("partialSuccess") or {}
            return Delivered(
                int(partial.get("rejectedSpans") or 0), partial.get("errorMessage", "")
            )
        return Delivered(*rejected(body))
    except Exception:  # noqa: BLE001 (whatever it says in whichever shape: it says 200)
        return Delivered()
