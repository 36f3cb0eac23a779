"""Spans made of requests, pure: what a span is, and how requests and their rows become some.

One root for each run and partition; under it one span for each request, because a request is what
has a latency, a model, tokens and a price. A request that carries several rows has a child for
each of them, so that a row is found by its key, and its own text seen, whether it was packed or
not; tokens and money stay with the request, so that sums count them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

from ondine_dagster.observe.requests import AskedRow, Request, Root, root_span_id
from ondine_dagster.observe.scrubbing import Sent

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value]
Scrub = Callable[[str], str]
_MOST_SHARED = 1000


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
    """A row of a request with what was sent for it, where that is known; texts are scrubbed."""

    key: str
    asked: AskedRow
    sent: Sent | None
    answer: str | None


class Shared(NamedTuple):
    """What the spans of many requests share: `common` of requests, and of the rows of packs."""

    trace_id: bytes
    parent_id: bytes
    name: str
    common: Mapping[str, Value]
    row_common: Mapping[str, Value]


class Vocabulary:
    """How a kind of host names what is known of roots, requests and rows."""

    @cached_property
    def _shared(self) -> dict[tuple[Value | None, ...], Shared]:
        return {}

    def shared(self, request: Request, scrub: Scrub) -> Shared:
        """Return what a request shares with others: the same object for all of them."""
        found = self._shared.get(request.alike)
        if found is None:
            if len(self._shared) == _MOST_SHARED:
                self._shared.clear()
            partition, trace = scrub(request.partition or ""), request.trace_id
            commons = self.common(request, partition), self.row_common(request, partition)
            name = f"chat {request.model_requested}"
            found = Shared(trace, root_span_id(trace), name, *commons)
            self._shared[request.alike] = found
        return found

    def root(self, root: Root, partition: str) -> Attributes:
        """Return the attributes of a root span."""
        raise NotImplementedError

    def request(self, request: Request, rows: Sequence[Row]) -> Attributes:
        """Return what is said of a request alone, without texts."""
        raise NotImplementedError

    def common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of many requests: made of what `shared` compares."""
        raise NotImplementedError

    def row(self, request: Request, row: Row) -> Attributes:
        """Return what is said of a row of a pack alone, without texts."""
        raise NotImplementedError

    def row_common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of the rows of many packs: made of what `shared` compares."""
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
) -> list[Span]:
    """Return the span of a request, and those of its rows where it carries several."""
    shared = words.shared(request, scrub)
    alone = len(rows) == 1
    own = Span(  # by place: there is one for every row, and names take twice the time
        shared.trace_id,
        request.span_id,
        shared.parent_id,
        shared.name,
        request.t_open,
        request.t_end,
        words.request(request, rows),
        words.texts(rows[0]) if alone else {},
        shared.common,
        why_failed(request, rows),
        True,
    )
    return [own] if alone else [own, *(_row_span(request, one, own, shared, words) for one in rows)]


def _row_span(request: Request, row: Row, above: Span, shared: Shared, words: Vocabulary) -> Span:
    return Span(
        shared.trace_id,
        sha256(request.id + row.asked.pos.to_bytes(4)).digest()[:8],
        above.span_id,
        "row",
        above.started,
        above.ended,
        words.row(request, row),
        words.texts(row),
        shared.row_common,
        why_row_failed(request, row),
    )


def why_failed(request: Request, rows: Sequence[Row]) -> str | None:
    """Return why a request failed, None where all of its rows have a good answer."""
    if request.error_class or request.code:
        return f"{request.error_class or 'error'}: {request.code or request.state}"
    if request.state != "settled":
        return request.state
    for row in rows:
        if row.asked.failed:
            return why_row_failed(request, row)
    return None


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
