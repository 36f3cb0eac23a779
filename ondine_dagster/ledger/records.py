"""The values that go into and come out of the ledger's transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ondine_dagster.ledger.limits import Limit
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prices import CostSource
from ondine_dagster.llm.provider import Provider, Usage, Verdict

AttemptKind = Literal["first", "retry", "reask", "split", "verify"]
_NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that a request carries, and the row it is asked for.

    A retry is asked for another answer than that of the request `instead_of`: where somebody has
    brought one since, that is the answer. None asks in any case.
    """

    answer_key: bytes
    row_key: str
    instead_of: bytes | None = None


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """One model of one server: what rates, ceiling and breaker are shared for.

    Not per API key: providers limit organisations.
    """

    provider: str
    endpoint: str
    model_family: str


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What all requests of one dataset in one run have in common.

    `run_scope` is the backfill's id, else Dagster's root run id; `run_id` is the Dagster run that
    asks. `trace_percent` is the share of rows without an error whose requests are sent to a trace
    host, None where no request is. `ceiling` is the most completion tokens asked for, for each
    question of a request. `max_unknown` is how often a question of unknown outcome is asked again.
    `limits` are those that this run started with; those in the ledger bind too. `command` is what a
    person types to go on.
    """

    dataset: str
    run_scope: str
    provider: str
    identity: str
    base_url: str
    model: str
    ceiling: int
    price_version: str
    max_unknown: int = 2
    hold_unknown: bool = False
    limits: tuple[Limit, ...] = ()
    command: str = "run"
    run_id: str | None = None
    trace_percent: float | None = None

    @classmethod
    def of(cls, provider: Provider, *, dataset: str, run_scope: str, **rest: Any) -> RequestContext:
        """Return the context of requests to `provider`; `rest` are the fields with a default."""
        return cls(
            dataset=dataset,
            run_scope=run_scope,
            provider=provider.name,
            identity=provider.identity,
            base_url=provider.base_url,
            model=provider.model,
            ceiling=provider.ceiling,
            price_version=provider.price_version,
            **rest,
        )

    @property
    def provider_key(self) -> ProviderKey:
        """Return where the provider's shared state is kept."""
        return ProviderKey(self.provider, self.base_url, self.model)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request that wants to be sent: money (picodollars) and tokens at the worst case.

    `key_fp` is the fingerprint of the API key that it uses, None where it uses none. `number` is
    its place among the requests of this run for its question, from 1.
    `request_bytes` is what tokens are learnt from: files count four bytes for each likely token.
    """

    attempt: bytes
    context: RequestContext
    asks: tuple[Ask, ...]
    reserved: int
    reserved_tokens: int
    request_bytes: int
    partition: str | None = None
    kind: AttemptKind = "first"
    key_fp: bytes | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a good answer has no text: it was purged, or cannot be read. It is paid all the same."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that the ledger holds. `lost`: it is good, and its `text` is gone."""

    answer_key: bytes
    take: int
    attempt: bytes
    verdict: Verdict
    code: ErrorCode | None
    finish_reason: str | None
    flags: tuple[str, ...]
    ceiling: int
    model_served: str | None
    usage: Usage
    text: str | None
    lost: Lost | None = None


@dataclass(frozen=True, slots=True)
class Broke:
    """A limit that is used up: `limit` in its window, what is gone, and what a request needs.

    `settled` and `unknown` in the unit of the limit; `unknown` is what requests of unknown outcome
    may have used.
    """

    limit: Limit
    window: str
    settled: int
    unknown: int
    needed: int


@dataclass(slots=True)
class Decision:
    """What a reservation may do, question by question.

    `go`: reserved, send now. `hits`: answered already. `taken`: somebody is asking right now.
    `held`: how many requests of unknown outcome stand against asking again. `wait`: the limits
    leave no room now, and requests that are open may give some back. `broke`: they never will.
    """

    go: list[bytes] = field(default_factory=list)
    hits: dict[bytes, Answer] = field(default_factory=dict)
    taken: list[bytes] = field(default_factory=list)
    held: dict[bytes, int] = field(default_factory=dict)
    wait: bool = False
    broke: Broke | None = None


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer to be stored; `cost_share` in picodollars.

    `usage` is its part of what the request used; None: all of it.
    """

    answer_key: bytes
    verdict: Verdict
    text: str
    cost_share: int
    code: ErrorCode | None = None
    finish_reason: str | None = None
    flags: tuple[str, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a request ended: settled at `cost`, released for nothing, or unknown.

    `upstream_cost` is what the provider behind `provider_served` billed, as far as it is told.
    `shares` are the parts of `cost` of the questions that got no answer; with those of `answers`
    they add up to it. `damages` say in a word what was wrong with the part of such a question.
    """

    attempt: bytes
    state: Literal["settled", "released", "unknown"]
    cost: int | None = None
    cost_source: CostSource | None = None
    upstream_cost: int | None = None
    is_byok: bool | None = None
    usage: Usage = _NO_USAGE
    model_served: str | None = None
    provider_served: str | None = None
    remote_id: str | None = None
    error_class: str | None = None
    code: str | None = None
    answers: tuple[NewAnswer, ...] = ()
    shares: tuple[tuple[bytes, int], ...] = ()
    damages: tuple[tuple[bytes, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KeyStates:
    """What is known about keys that somebody else was asking."""

    answers: Mapping[bytes, Answer]
    open: frozenset[bytes]
