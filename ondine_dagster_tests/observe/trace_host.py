"""A trace host on a real socket: it decodes OTLP as a collector does and keeps every span."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Arrived:
    """A span as it arrived."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    started_ns: int
    ended_ns: int
    status: int
    why: str
    kind: int
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]


@dataclass
class Says:
    """What the host says to a post; after the last of its list it says the last one again."""

    status: int = 200
    retry_after: str | None = None
    rejects: int = 0
    seconds: float = 0.0


class TraceHost:
    """Keeps what it took (status 200), in order; `posts` are the headers of every request."""

    def __init__(self, *says: Says) -> None:
        self.says = list(says) or [Says()]
        self.spans: list[Arrived] = []
        self.posts: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.sizes: list[int] = []
        self.refuses: Iterable[str] = ()  # names of spans: a post that holds one gets a 400
        self._lock = threading.Lock()
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                host._answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def counts(self) -> Counter[str]:
        """Return how often each span arrived."""
        return Counter(one.span_id for one in self.spans)

    @property
    def roots(self) -> list[Arrived]:
        return [one for one in self.spans if not one.parent_id]

    @property
    def requests(self) -> list[Arrived]:
        return [one for one in self.spans if one.name.startswith("chat ")]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["content-length"]))
        message = ExportTraceServiceRequest.FromString(gzip.decompress(raw))
        with self._lock:
            said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
            self.posts.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            spans = _decoded(message)
            self.sizes.append(len(spans))
            status = said.status
            if any(_holds(one, self.refuses) for one in spans):
                status = 400
            if status == 200:
                self.spans += spans[: len(spans) - said.rejects]
        time.sleep(said.seconds)
        body = b""
        if status == 200:
            reply = ExportTraceServiceResponse()
            if said.rejects:
                reply.partial_success.rejected_spans = said.rejects
                reply.partial_success.error_message = "no room"
            body = reply.SerializeToString()
        handler.send_response(status)
        handler.send_header("content-type", "application/x-protobuf")
        handler.send_header("content-length", str(len(body)))
        if said.retry_after is not None:
            handler.send_header("retry-after", said.retry_after)
        with suppress(OSError):  # the client would not wait any longer
            handler.end_headers()
            handler.wfile.write(body)


def _holds(span: Arrived, texts: Iterable[str]) -> bool:
    everything = " ".join(map(str, span.attributes.values()))
    return any(text in everything for text in texts)


def _decoded(message: ExportTraceServiceRequest) -> list[Arrived]:
    return [
        Arrived(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            name=span.name,
            started_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            status=span.status.code,
            why=span.status.message,
            kind=span.kind,
            attributes=_values(span.attributes),
            resource=_values(resource.resource.attributes),
        )
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
