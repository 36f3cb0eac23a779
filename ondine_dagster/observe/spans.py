"""Spans made of requests, pure: what a span is, and how requests and their rows become some.

One root for each run and partition; under it one span for each request, because a request is what
has a latency, a model, tokens and a price. A request that carries several rows has a child for
each of them, so that a row is found by its key, and its own text seen, whether it was packed or
not; tokens and money stay with the request, so that sums count them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from ondine_dagster.observe.requests import AskedRow, Request, Root, root_span_id

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value]
Scrub = Callable[[str], str]
_MOST_COMMONS = 1000


class Span(NamedTuple):
    """One span; times in ms since the epoch. `texts` are the attributes that hold people's text.

    `common` are attributes that many spans share: the same object, encoded once. `error` is
    why it failed, None where it did not. `calls` where it is a call to another server.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    started: int
    ended: int
    attributes: Mapping[str, Value]
    texts: Mapping[str, str]
    common: Mapping[str, Value] = {}
    error: str | None = None
    calls: bool = False


class Row(NamedTuple):
    """A row of a request with what was sent for it (JSON), where that is known; both scrubbed."""

    key: str
    asked: AskedRow
    messages: str | None
    answer: str | None


class Vocabulary:
    """How a kind of host names what is known of roots, requests and rows."""

    @cached_property
    def _commons(self) -> dict[tuple[Value | None, ...], Attributes]:
        return {}

    def shared(self, request: Request, partition: str) -> Attributes:
        """Return `common` of a request: the same object for all requests that have the same."""
        key = (partition, *request.alike)
        found = self._commons.get(key)
        if found is None:
            if len(self._commons) == _MOST_COMMONS:
                self._commons.clear()
            found = self._commons[key] = self.common(request, partition)
        return found

    def root(self, root: Root, partition: str) -> Attributes:
        """Return the attributes of a root span."""
        raise NotImplementedError

    def request(self, request: Request, partition: str, rows: Sequence[Row]) -> Attributes:
        """Return what is said of a request alone, without texts."""
        raise NotImplementedError

    def common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of many requests: made of what `shared` compares."""
        raise NotImplementedError

    def row(self, request: Request, partition: str, row: Row) -> Attributes:
        """Return the attributes of a row's span, without texts."""
        raise NotImplementedError

    def texts(self, row: Row) -> dict[str, str]:
        """Return the attributes that hold what was sent for a row, and what came back."""
        raise NotImplementedError


def root_span(root: Root, words: Vocabulary, scrub: Scrub) -> Span:
    """Return the root span of a trace."""
    partition = scrub(root.partition or "")
    return Span(
        trace_id=root.trace_id,
        span_id=root.span_id,
        parent_id=None,
        name=trace_name(root.dataset, partition),
        started=root.started,
        ended=root.ended,
        attributes=words.root(root, partition),
        texts={},
    )


def request_spans(
    request: Request, rows: Sequence[Row], words: Vocabulary, scrub: Scrub
) -> Iterator[Span]:
    """Yield the span of a request, and those of its rows where it carries several."""
    partition = scrub(request.partition or "")
    alone = rows[0] if len(rows) == 1 else None
    trace = request.trace_id
    yield Span(
        trace_id=trace,
        span_id=request.span_id,
        parent_id=root_span_id(trace),
        name=f"chat {request.model_requested}",
        started=request.t_open,
        ended=request.t_end,
        attributes=words.request(request, partition, rows),
        texts=words.texts(alone) if alone else {},
        common=words.shared(request, partition),
        error=why_failed(request, rows),
        calls=True,
    )
    if alone is None:
        for row in rows:
            yield Span(
                trace_id=trace,
                span_id=sha256(request.id + row.asked.pos.to_bytes(4)).digest()[:8],
                parent_id=request.span_id,
                name="row",
                started=request.t_open,
                ended=request.t_end,
                attributes=words.row(request, partition, row),
                texts=words.texts(row),
                error=why_row_failed(request, row),
            )


def why_failed(request: Request, rows: Sequence[Row]) -> str | None:
    """Return why a request failed, None where all of its rows have a good answer."""
    if request.error_class or request.code:
        return f"{request.error_class or 'error'}: {request.code or request.state}"
    if request.state != "settled":
        return request.state
    return next((why for row in rows if (why := why_row_failed(request, row))), None)


def why_row_failed(request: Request, row: Row) -> str | None:
    """Return why no good answer came for a row, None where one did."""
    if not row.asked.failed:
        return None
    if request.error_class or request.code:
        return f"{request.error_class or 'error'}: {request.code or request.state}"
    return row.asked.code or row.asked.verdict or request.state


def trace_name(dataset: str, partition: str) -> str:
    """Return what people call a trace."""
    return f"{dataset}/responses {partition}".strip()


def usd(picodollars: int) -> float:
    """Return money as trace hosts take it; the exact amount is in the ledger."""
    return picodollars / 1e12
