"""A request as it stands in the ledger, with the rows that it asked for, and its trace.

Owns the ids of traces and spans: the same request has the same ids whenever it is exported. Named
tuples, as there is one for every request: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from ondine_dagster.ledger.tracing import trace_id


class Request(NamedTuple):
    """One HTTP request that ended: money in picodollars, times in ms since the epoch (UTC).

    The fields are in the order in which the outbox reads them; `seq` is its place there. `number`
    is its place among the requests of its run for its question, from 1.
    """

    seq: int
    id: bytes
    # alike in many requests
    kind: str
    state: str
    dataset: str
    run_scope: str
    dagster_run: str | None
    number: int
    provider: str
    provider_served: str | None
    base_url: str
    model_requested: str
    model_served: str | None
    ceiling: int
    cost_source: str | None
    partition: str | None
    # different in each
    request_bytes: int
    cost: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    remote_id: str | None
    error_class: str | None
    code: str | None
    t_open: int
    t_end: int

    @property
    def alike(self) -> tuple[str | int | None, ...]:
        """Return what is alike in many requests."""
        return self[2:16]

    @property
    def tokens(self) -> tuple[int | None, ...]:
        """Return tokens: of the prompt, the answer, cached, written to the cache, of thoughts."""
        return self[18:23]

    @property
    def run_id(self) -> str:
        """Return the Dagster run; its scope in ledgers of before, which did not say."""
        return self.dagster_run or self.run_scope

    @property
    def trace_id(self) -> bytes:
        """Return the id of its trace."""
        return trace_id(self.run_id, self.dataset, self.partition)

    @property
    def root(self) -> Root:
        """Return the root span of its trace, as long as it is itself."""
        where = (self.run_id, self.run_scope, self.dataset, self.partition)
        return Root(self.trace_id, *where, self.t_open, self.t_end)

    @property
    def span_id(self) -> bytes:
        """Return the id of its span."""
        return sha256(self.id).digest()[:8]


class AskedRow(NamedTuple):
    """A row that a request asked for: the answer's text, if one came, and what became of it."""

    text: str | None
    pos: int
    row_key: str
    answer_key: bytes
    verdict: str | None
    cost_share: int | None
    code: str | None
    finish_reason: str | None
    flags: str | None

    @property
    def failed(self) -> bool:
        """Return whether no good answer came."""
        return self.verdict != "ok"


@dataclass(frozen=True, slots=True)
class Root:
    """The root span of a run's requests for one partition; it lasts from the first to the last."""

    trace_id: bytes
    run_id: str
    run_scope: str
    dataset: str
    partition: str | None
    started: int
    ended: int

    @property
    def span_id(self) -> bytes:
        """Return the id of the root span, the parent of all others."""
        return root_span_id(self.trace_id)


@lru_cache(maxsize=1024)
def root_span_id(trace: bytes) -> bytes:
    """Return the id of a trace's root span."""
    return sha256(b"root|" + trace).digest()[:8]
