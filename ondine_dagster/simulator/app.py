"""The HTTP face of the simulated provider.

Owns the way of one chat request through the simulator: read, recognise, charge, wait, deliver.
Chat requests are served by plain ASGI, because routing would cost more than answering; everything
else is a Starlette application: GET /v1/models, GET /bill, POST /reset, GET /health.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from decimal import Decimal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ondine_dagster.llm.prices import Prices
from ondine_dagster.simulator.bill import Bill
from ondine_dagster.simulator.chat import BadRequest, ChatRequest, read_request
from ondine_dagster.simulator.connection import Connection, until_gone
from ondine_dagster.simulator.faults import EARLY_MARKER, Fault, FaultPlan, draw
from ondine_dagster.simulator.replies import (
    Completion,
    Reply,
    complete,
    completion_reply,
    error_object,
    faulty_reply,
    json_reply,
)
from ondine_dagster.simulator.tokens import TokenRules

_WRONG_KEY = error_object("invalid_request_error", "invalid_api_key", "Incorrect API key provided.")

DEFAULT_PRICES = Prices.per_million_usd(input=Decimal("0.15"), output=Decimal("0.60"))


@dataclass(frozen=True)
class Settings:
    """What the simulated provider is like.

    `latency_ms` plus up to `jitter_ms` (by seed, prompt and attempt) pass before a reply. Any model
    name is accepted; `model` is the one that GET /v1/models lists. With `api_key` every chat
    request must carry it as a bearer token.
    """

    model: str = "demo-model"
    prices: Prices = DEFAULT_PRICES
    faults: FaultPlan = field(default_factory=FaultPlan)
    tokens: TokenRules = field(default_factory=TokenRules)
    latency_ms: float = 0
    jitter_ms: float = 0
    api_key: str | None = None

    def delay_seconds(self, prompt: str, attempt: int) -> float:
        """Return the seconds between a request and its reply."""
        jitter = self.jitter_ms and self.jitter_ms * draw(
            self.faults.seed, "jitter", prompt, attempt
        )
        return (self.latency_ms + jitter) / 1000


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request that was read and recognised, and what is to become of it."""

    request: ChatRequest
    completion: Completion
    attempt: int
    fault: Fault | None

    def reply(self) -> Reply:
        if self.fault is None:
            return completion_reply(self.request, self.completion, self.attempt)
        return faulty_reply(self.request, self.completion, self.attempt, self.fault)


class Provider:
    """The ASGI application. `settings` may be replaced at any time, for the requests to come."""

    def __init__(self, settings: Settings, bill: Bill) -> None:
        self.settings = settings
        self.bill = bill
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self._routes = _other_routes(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"] != "/v1/chat/completions" or scope["method"] != "POST":
            await self._routes(scope, receive, send)
            return
        connection: Connection = scope["state"]["connection"]
        authorization = _authorization(scope)
        connection.begin(authorization)
        try:
            await self._chat(connection, authorization, receive, send)
        except asyncio.CancelledError:
            # The server is stopping; uvicorn would log the cancellation as a crash.
            if not connection.gone:
                raise
        finally:
            connection.finish()

    async def _chat(
        self, connection: Connection, authorization: bytes | None, receive: Receive, send: Send
    ) -> None:
        body = await _read_body(receive)
        if body is None:
            self.bill.refused()
            connection.reset()
            await until_gone(receive)
            return
        decided = self._decide(body, authorization)
        if isinstance(decided, Reply):
            self.bill.refused()
            await _send_reply(decided, connection, send)
            return
        await self._carry_out(decided, connection, receive, send)

    def _decide(self, body: bytes, authorization: bytes | None) -> _Exchange | Reply:
        """Return what is to be done, or the refusal of a request that is wrong in itself."""
        settings = self.settings
        if not _authorised(settings.api_key, authorization):
            return json_reply(401, {"error": _WRONG_KEY})
        try:
            request = read_request(body)
            attempt = self.bill.asked(request.prompt)
            fault = settings.faults.choose(request.text, request.prompt, attempt)
        except (BadRequest, ValueError) as error:
            wrong = error_object("invalid_request_error", None, str(error))
            return json_reply(400, {"error": wrong})
        return _Exchange(request, complete(request, settings.tokens), attempt, fault)

    async def _carry_out(
        self, exchange: _Exchange, connection: Connection, receive: Receive, send: Send
    ) -> None:
        """Charge, wait, deliver. Charged first: the provider works even if the client leaves."""
        fault = exchange.fault
        if fault is None or fault.kind.charged:
            self._charge(exchange)
        else:
            self.bill.refused()
        if fault is None or fault.kind.delivery != "reset_early":
            await self._wait(exchange)
        if fault is not None and fault.kind.delivery != "reply":
            await _break_off(fault, exchange, connection, receive)
            return
        if not connection.gone and (fault is None or fault.kind.charged):
            # Before the bytes leave, so that a client that has its answer finds it on the bill.
            self.bill.answered(exchange.request.prompt)
        await _send_reply(exchange.reply(), connection, send)

    def _charge(self, exchange: _Exchange) -> None:
        done = exchange.completion
        cost = self.settings.prices.cost(done.prompt_tokens, done.completion_tokens)
        self.bill.charge(exchange.request.prompt, cost, done.prompt_tokens, done.completion_tokens)

    async def _wait(self, exchange: _Exchange) -> None:
        delay = self.settings.delay_seconds(exchange.request.prompt, exchange.attempt)
        if delay > 0:
            await asyncio.sleep(delay)
        if not self.open_gate.is_set():
            await self.open_gate.wait()


def _authorization(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
    return None


def _authorised(api_key: str | None, authorization: bytes | None) -> bool:
    if api_key is None:
        return True
    return hmac.compare_digest(f"Bearer {api_key}".encode(), authorization or b"")


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


async def _send_reply(reply: Reply, connection: Connection, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.header_list()}
    )
    # Over before the last byte leaves: the client's next request must not find this one in flight.
    connection.finish()
    await send({"type": "http.response.body", "body": reply.body})


async def _break_off(
    fault: Fault, exchange: _Exchange, connection: Connection, receive: Receive
) -> None:
    """Deliver a fault of the connection; returns when the connection is gone."""
    delivery = fault.kind.delivery
    if connection.gone:
        return
    if delivery in ("reset", "reset_early"):
        connection.reset()
    elif delivery == "half_close":
        connection.half_close()
    elif delivery in ("truncate", "stall_in_body"):
        connection.write(_first_half(exchange))
        if delivery == "truncate":
            connection.close()
    await until_gone(receive)


def _first_half(exchange: _Exchange) -> bytes:
    """Return the good reply up to the middle of its body, with the length of the whole."""
    reply = completion_reply(exchange.request, exchange.completion, exchange.attempt)
    head = b"".join(b"%s: %s\r\n" % header for header in reply.header_list())
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + reply.body[: len(reply.body) // 2]


def _other_routes(provider: Provider) -> Starlette:
    """Return the application for everything that is not a chat request."""

    async def models(request: Request) -> JSONResponse:
        if not _authorised(provider.settings.api_key, _authorization(request.scope)):
            return JSONResponse({"error": _WRONG_KEY}, status_code=401)
        entry = {"id": provider.settings.model, "object": "model", "owned_by": "simulator"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def bill(request: Request) -> JSONResponse:
        with_prompts = request.query_params.get("prompts", "1") != "0"
        return JSONResponse(provider.bill.snapshot().to_json(with_prompts))

    async def reset(request: Request) -> JSONResponse:
        provider.bill.reset()
        return JSONResponse({"reset": True})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def not_found(request: Request, error: Exception) -> JSONResponse:
        message = error_object("invalid_request_error", None, f"unknown URL {request.url.path}")
        return JSONResponse({"error": message}, status_code=404)

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/bill", bill),
            Route("/reset", reset, methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={404: not_found},
    )
