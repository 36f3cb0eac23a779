"""The HTTP face of the simulated provider.

Owns the way of one chat request through the simulator: read, admit, recognise, charge, wait,
deliver. Chat requests are served by plain ASGI, because routing would cost more than answering;
everything else is the application of `control`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from starlette.types import Receive, Scope, Send

from ondine_dagster.llm.prices import Prices, picodollars
from ondine_dagster.simulator.answers import rows_asked
from ondine_dagster.simulator.bill import Bill
from ondine_dagster.simulator.chat import BadRequest, ChatRequest
from ondine_dagster.simulator.connection import Connection, until_gone
from ondine_dagster.simulator.control import control_routes
from ondine_dagster.simulator.dialects import dialect_named
from ondine_dagster.simulator.dialects.dialect import (
    WRONG_KEY,
    Account,
    Dialect,
    ErrorForm,
    Headers,
)
from ondine_dagster.simulator.faults import (
    EARLY_MARKER,
    Bursts,
    Fault,
    FaultPlan,
    draw,
    refusals_by_key,
)
from ondine_dagster.simulator.limits import NO_LIMITS, Clock, Limiter, Refusal, ServerLimits
from ondine_dagster.simulator.replies import Completion
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster.simulator.wire import Header, Reply

DEFAULT_PRICES = Prices.per_million_usd(input=Decimal("0.15"), output=Decimal("0.60"))


@dataclass(frozen=True)
class Settings:
    """What the simulated provider is like.

    `shape` names the dialect that it speaks. `latency_ms` plus up to `jitter_ms` (by seed, prompt
    and attempt) pass before a reply. Any model name is accepted; `model` is the one that
    GET {base path}/models lists, unless `models` are the entries of the list. With `api_key` every
    chat request must carry it, in a header of the dialect. `keys` gives keys refusals of their own,
    in the notation of a fault and counted per key: `401`, or `403 code=key_limit after=100` for a
    key that works 100 times. With `report_cost` the usage has a `cost` in USD, as OpenRouter's has.
    `credit_usd` is what each key may spend before it is refused with a 402.
    Raises ValueError for an unknown shape, a fault that it does not have, and a fault of a key that
    depends on the prompt.
    """

    shape: str = "openai"
    model: str = "demo-model"
    models: Sequence[Mapping[str, Any]] = ()
    prices: Prices = DEFAULT_PRICES
    faults: FaultPlan = field(default_factory=FaultPlan)
    bursts: Bursts | None = None
    tokens: TokenRules = field(default_factory=TokenRules)
    latency_ms: float = 0
    jitter_ms: float = 0
    api_key: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    limits: ServerLimits = NO_LIMITS
    report_cost: bool = False
    credit_usd: Decimal | None = None

    def __post_init__(self) -> None:
        dialect = dialect_named(self.shape)
        for plan in (self.faults, self.bursts.faults if self.bursts else FaultPlan()):
            if strange := [fault.name for fault in plan.faults if not dialect.has(fault)]:
                raise ValueError(f"shape {self.shape} has no fault `{strange[0]}`")
        object.__setattr__(self, "_refusals", refusals_by_key(self.keys))

    _refusals: Mapping[bytes, Fault] = field(init=False, repr=False, default_factory=dict)

    def key_refusal(self, authorization: bytes | None, nth: int) -> Fault | None:
        """Return the refusal of the `nth` request with this key, None where it is good."""
        fault = self._refusals.get(authorization) if authorization is not None else None
        return fault if fault is not None and fault.applies(nth) else None

    def plan(self, since_start: float) -> FaultPlan:
        """Return the faults of a request that arrives so many seconds after the start."""
        if self.bursts is not None and self.bursts.last(since_start):
            return self.bursts.faults
        return self.faults

    def delay_seconds(self, prompt: str, attempt: int) -> float:
        """Return the seconds between a request and its reply."""
        jitter = self.jitter_ms and self.jitter_ms * draw(
            self.faults.seed, "jitter", prompt, attempt
        )
        return (self.latency_ms + jitter) / 1000


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A request whose head has arrived: its key, the hash of that, and which of its own it is."""

    path: str
    headers: Headers
    authorization: bytes | None
    sender: str | None
    nth: int


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request that was read and recognised, and what is to become of it."""

    sender: str | None
    request: ChatRequest
    completion: Completion
    attempt: int
    fault: Fault | None


class Provider:
    """The ASGI application.

    `settings` and `outage`, the fault of every request while it is not None, may be replaced at any
    time, for the requests to come.
    """

    def __init__(self, settings: Settings, bill: Bill, clock: Clock) -> None:
        self.bill = bill
        self.outage: Fault | None = None
        self._clock = clock
        self._started_at = clock()
        self._in_service = 0
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self._settings = settings
        self._start()

    @property
    def settings(self) -> Settings:
        """What the provider is like. New limits, and a new shape, start with nothing used up."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        before, self._settings = self._settings, settings
        if (settings.limits, settings.shape) != (before.limits, before.shape):
            self._start()

    def _start(self) -> None:
        settings = self._settings
        self.dialect: Dialect = dialect_named(settings.shape)(self._clock)
        self._limiter: Limiter | None = None
        if settings.limits != NO_LIMITS:
            self._limiter = Limiter(settings.limits, self._clock, self.dialect.rate_headers)
        self._routes = control_routes(self)

    def authorised(self, headers: Headers) -> bool:
        """Return whether a request with these headers has the key, where one is required."""
        wanted = self._settings.api_key
        if wanted is None:
            return True
        found = self.dialect.credential(headers) or b""
        return hmac.compare_digest(f"Bearer {wanted}".encode(), found)

    def look_up_refusal(self, headers: Headers) -> Reply | None:
        """Count a look-up, which is never charged; return its refusal, None where there is none."""
        self.bill.looked_up()
        if self.outage is not None and self.outage.refuses:
            return self.dialect.refusal(self.outage)
        if not self.authorised(headers):
            return self.dialect.error(WRONG_KEY)
        fault = self._settings.key_refusal(self.dialect.credential(headers), 1)
        return None if fault is None else self.dialect.refusal(fault)

    def account(self, headers: Headers) -> Account:
        """Return what was spent, and what may be under the key of a request."""
        sender, credit = _sender(self.dialect.credential(headers)), self._settings.credit_usd
        return Account(
            spent=self.bill.totals.picodollars,
            spent_by_key=self.bill.spent_by(sender),
            credit=None if credit is None else picodollars(credit),
            today=None if self._limiter is None else self._limiter.today(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST" or not self.dialect.serves(scope["path"]):
            await self._routes(scope, receive, send)
            return
        connection: Connection = scope["state"]["connection"]
        headers = dict(scope["headers"])
        key = self.dialect.credential(headers)
        sender = _sender(key)
        path = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode()) else "")
        arrival = _Arrival(path, headers, key, sender, connection.begin(sender))
        try:
            await self._chat(arrival, connection, receive, send)
        except asyncio.CancelledError:
            # The server is stopping; uvicorn would log the cancellation as a crash.
            if not connection.gone:
                raise
        finally:
            connection.finish()

    async def _chat(
        self, arrival: _Arrival, connection: Connection, receive: Receive, send: Send
    ) -> None:
        outage = self.outage
        if outage is not None:
            self.bill.met_outage()
        early = outage is not None and outage.kind.delivery == "reset_early"
        body = None if early else await _read_body(receive)
        if body is None:
            self.bill.refused()
            connection.reset()
            await until_gone(receive)
            return
        decided = self._decide(body, arrival, outage)
        if isinstance(decided, Reply):
            self.bill.refused()
            await _send_reply(decided, self._rate_headers(), connection, send)
            return
        self._in_service += 1
        try:
            await self._carry_out(decided, connection, receive, send)
        finally:
            self._in_service -= 1

    def _decide(self, body: bytes, arrival: _Arrival, outage: Fault | None) -> _Exchange | Reply:
        """Return what is to be done, or the refusal of a request that does not reach the model."""
        settings, limiter, dialect = self._settings, self._limiter, self.dialect
        if outage is not None and outage.refuses:
            return dialect.refusal(outage)
        if not self.authorised(arrival.headers):
            return dialect.error(WRONG_KEY)
        if key_refusal := settings.key_refusal(arrival.authorization, arrival.nth):
            return dialect.refusal(key_refusal)
        if settings.credit_usd is not None and self._used_up(arrival.headers):
            return dialect.refusal(Fault("402", code="credits"))
        if limiter is not None and (refusal := limiter.refusal(self._in_service)):
            self.bill.met_limit(refusal.kind)
            return dialect.error(_limit_error(refusal)).with_headers(limiter.wait_headers(refusal))
        try:
            request = dialect.read(arrival.path, arrival.headers, body)
            attempt = self.bill.asked(request.prompt)
            plan = settings.plan(self._clock() - self._started_at)
            fault = outage or plan.choose(request.text, request.prompt, attempt)
            if fault is not None:
                dialect.refuse_strange(fault)
        except (BadRequest, ValueError) as error:
            return dialect.error(ErrorForm(400, "invalid_request_error", None, str(error)))
        completion = dialect.complete(
            request, settings.tokens, settings.prices, settings.report_cost
        )
        if limiter is not None:
            limiter.admit(completion.prompt_tokens)
        return _Exchange(arrival.sender, request, completion, attempt, fault)

    async def _carry_out(
        self, exchange: _Exchange, connection: Connection, receive: Receive, send: Send
    ) -> None:
        """Charge, wait, deliver. Charged first: the provider works even if the client leaves."""
        fault = exchange.fault
        charged = fault is None or fault.kind.charged
        if not charged:
            self.bill.refused()
        elif not exchange.completion.from_cache:
            self._charge(exchange)
        if fault is None or fault.kind.delivery != "reset_early":
            await self._wait(exchange)
        if charged and self._limiter is not None:
            self._limiter.answer(exchange.completion.completion_tokens)
        if fault is not None and fault.kind.delivery == "late":
            fault = None
        if fault is not None and fault.kind.delivery != "reply":
            await _break_off(fault, self._reply(exchange, None), connection, receive)
            return
        if charged and not connection.gone:
            # Before the bytes leave, so that a client that has its answer finds it on the bill.
            self.bill.answered(exchange.request.prompt)
        reply = self._reply(exchange, fault)
        await _send_reply(reply, self._rate_headers(), connection, send)

    def _used_up(self, headers: Headers) -> bool:
        account = self.account(headers)
        return account.credit is not None and account.spent_by_key >= account.credit

    def _charge(self, exchange: _Exchange) -> None:
        done = exchange.completion
        self.dialect.charged(exchange.request, done)
        self.bill.charge(
            exchange.request.prompt,
            exchange.sender,
            done.cost,
            done.prompt_tokens,
            done.completion_tokens,
            rows_asked(exchange.request),
        )

    def _reply(self, exchange: _Exchange, fault: Fault | None) -> Reply:
        return self.dialect.reply(exchange.request, exchange.completion, exchange.attempt, fault)

    def _rate_headers(self) -> list[Header]:
        return [] if self._limiter is None else self._limiter.headers()

    async def _wait(self, exchange: _Exchange) -> None:
        delay = self.settings.delay_seconds(exchange.request.prompt, exchange.attempt)
        if exchange.fault is not None:
            delay += exchange.fault.late_seconds
        if delay > 0:
            await asyncio.sleep(delay)
        if not self.open_gate.is_set():
            await self.open_gate.wait()


def _sender(key: bytes | None) -> str | None:
    return None if key is None else hashlib.sha256(key).hexdigest()


def _limit_error(refusal: Refusal) -> ErrorForm:
    code = "slow_down" if refusal.kind == "capacity" else "rate_limit_exceeded"
    return ErrorForm(429, "rate_limit_error", code, refusal.message)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None where a marker asks for a reset before it has arrived."""
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    body = bytearray(message["body"])
    while message.get("more_body"):
        if EARLY_MARKER in body:
            return None
        message = await receive()
        body += message.get("body", b"")
    return bytes(body)


async def _send_reply(
    reply: Reply, rate_headers: list[Header], connection: Connection, send: Send
) -> None:
    headers = reply.header_list() + rate_headers
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    # Over before the last byte leaves: the client's next request must not find this one in flight.
    connection.finish()
    await send({"type": "http.response.body", "body": reply.body})


async def _break_off(fault: Fault, good: Reply, connection: Connection, receive: Receive) -> None:
    """Deliver a fault of the connection; returns when the connection is gone."""
    delivery = fault.kind.delivery
    if connection.gone:
        return
    if delivery in ("reset", "reset_early"):
        connection.reset()
    elif delivery == "half_close":
        connection.half_close()
    elif delivery in ("truncate", "stall_in_body"):
        connection.write(_first_half(good))
        if delivery == "truncate":
            connection.close()
    await until_gone(receive)


def _first_half(reply: Reply) -> bytes:
    """Return a reply up to the middle of its body, with the length of the whole."""
    head = b"".join(b"%s: %s\r\n" % header for header in reply.header_list())
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + reply.body[: len(reply.body) // 2]
