"""OpenRouter's chat completions, and its account (https://openrouter.ai/docs/api-reference).

Owns what OpenRouter adds to OpenAI's wire format: the cost of every answer and who served it,
errors with a number for a code, its cache of whole answers, and what a key, an account and a
generation are found to be when they are looked up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

from ondine_dagster.llm.prices import Prices, picodollars
from ondine_dagster.simulator.chat import ChatRequest, marked_prefix, read_request
from ondine_dagster.simulator.contents import half
from ondine_dagster.simulator.dialects.dialect import Account, Change, ErrorForm, Headers
from ondine_dagster.simulator.dialects.openai import OpenAI
from ondine_dagster.simulator.dialects.openrouter_account import (
    catalogue,
    credits_data,
    generation_data,
    in_usd,
    key_data,
)
from ondine_dagster.simulator.faults import Fault
from ondine_dagster.simulator.limits import Clock
from ondine_dagster.simulator.replies import Completion
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster.simulator.wire import Header, Payload, Reply, json_reply

PROVIDER = "Simulated"
_FEE_PERCENT = 5  # of what a request costs under a key of one's own
# what a prompt token costs that is read from the cache, or written to it, as a share of others
_READ, _WRITE = Fraction(1, 10), {"5m": Fraction(5, 4), "1h": Fraction(2)}
_CACHE_SECONDS = 300  # where the request does not say
_TYPES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    412: "precondition_failed",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
    529: "provider_overloaded",
}
# what is not billed, although it has a 200
_INSURED = ("broken_off", "no_token")


def _broken_off(payload: Payload) -> None:
    """End in the middle with an error, for which nothing is billed."""
    choice = payload["choices"][0]
    choice["finish_reason"] = choice["native_finish_reason"] = "error"
    choice["message"]["content"] = half(choice["message"]["content"])
    metadata = {"error_type": "provider_unavailable"}
    choice["error"] = {"code": 502, "message": "Provider disconnected", "metadata": metadata}
    payload["usage"]["cost"] = 0


def _no_token(payload: Payload) -> None:
    """Say nothing, and not why: not billed either."""
    choice = payload["choices"][0]
    choice["finish_reason"] = choice["native_finish_reason"] = None
    choice["message"]["content"] = ""
    payload["usage"] |= {"completion_tokens": 0, "cost": 0}


def _own_key(payload: Payload) -> None:
    """Bill a fee, and let the provider bill the rest to the user's own key there."""
    usage = payload["usage"]
    cost = picodollars(Decimal(str(usage["cost"])))
    fee = cost * _FEE_PERCENT // (100 + _FEE_PERCENT)
    usage |= {"is_byok": True, "cost": in_usd(fee)}
    usage["cost_details"] = {"upstream_inference_cost": in_usd(cost - fee)}


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer in the cache, from when and until when (seconds since 1970)."""

    completion: Completion
    since: float
    until: float


class OpenRouter(OpenAI):
    """OpenRouter."""

    base_path: ClassVar[str] = "/api/v1"
    rate_headers = "openrouter"
    look_ups: ClassVar[Sequence[str]] = ("/key", "/credits", "/generation")
    errors: ClassVar[Mapping[str, ErrorForm]] = {
        "context_length": ErrorForm(
            400, "", "context_length_exceeded", "This endpoint's maximum context length is 8192."
        ),
        "content_policy": ErrorForm(
            400, "", "content_policy_violation", "The prompt was refused by the content policy."
        ),
        "insufficient_quota": ErrorForm(402, "", "payment_required", "Insufficient credits."),
        "401": ErrorForm(401, "", None, "User not found."),
        "404": ErrorForm(404, "", None, "No endpoints found for the model."),
        "429": ErrorForm(429, "", None, "Rate limit exceeded."),
        "503": ErrorForm(503, "", None, "The provider is overloaded."),
    }
    changes: ClassVar[Mapping[str, Change]] = {
        **OpenAI.changes,
        "broken_off": _broken_off,
        "no_token": _no_token,
        "own_key": _own_key,
    }

    def __init__(self, clock: Clock) -> None:
        """`clock` gives seconds since 1970: an answer is kept by it."""
        super().__init__(clock)
        self._kept: dict[bytes, _Kept] = {}
        self._prefixes: set[tuple[str, str]] = set()
        self._generations: dict[str, Payload] = {}

    def read(self, path: str, headers: Headers, body: bytes) -> ChatRequest:
        """Return the request with its headers, which decide about the cache. Raises BadRequest."""
        return replace(read_request(body), headers=headers)

    def complete(
        self, request: ChatRequest, rules: TokenRules, prices: Prices, reports_cost: bool
    ) -> Completion:
        """Return the answer; one that is in the cache again, for nothing."""
        key = _cache_key(request)
        kept = self._kept.get(key) if key else None
        if kept is not None and kept.until > self.clock():
            counts = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens")
            nothing: dict[str, Any] = dict.fromkeys((*counts, "reasoning_tokens", "cost"), 0)
            return replace(kept.completion, from_cache=True, **nothing)
        return super().complete(request, rules, prices, True)

    def cache_use(self, request: ChatRequest, rules: TokenRules, tokens: int) -> tuple[int, int]:
        """Return what of the prompt was read from the cache, and what was written to it.

        What is marked is written by the first request of its model that has it.
        """
        marked = marked_prefix(request.messages)
        if marked is None:
            return super().cache_use(request, rules, tokens)
        text, _ = marked
        size = min(tokens, rules.count(text))
        return (size, 0) if (request.model, text) in self._prefixes else (0, size)

    def charged(self, request: ChatRequest, completion: Completion) -> None:
        """Keep the answer where that is asked for, and a system message that was written."""
        if (key := _cache_key(request)) is not None:
            now = self.clock()
            self._kept[key] = _Kept(completion, now, now + _cache_seconds(request))
        if (marked := marked_prefix(request.messages)) is not None:
            self._prefixes.add((request.model, marked[0]))

    def prices(self, request: ChatRequest, prices: Prices) -> Prices:
        """Return the prices, with those of a cache that is asked for."""
        marked = marked_prefix(request.messages)
        if marked is None:
            return prices
        rates = prices.rates
        write = round(rates.input * _WRITE[marked[1]])
        cached = replace(rates, cached_input=round(rates.input * _READ), cache_write=write)
        return replace(prices, rates=cached)

    def payload(self, request: ChatRequest, completion: Completion, attempt: int) -> Payload:
        """Return a chat completion, and remember it as a generation."""
        payload = super().payload(request, completion, attempt)
        payload |= {"id": _generation_id(request, attempt), "provider": PROVIDER}
        choice = payload["choices"][0]
        choice["native_finish_reason"] = choice["finish_reason"]
        self._generations[payload["id"]] = generation_data(payload, PROVIDER)
        return payload

    def usage(self, completion: Completion) -> Payload:
        """Return the usage with its cost, in USD."""
        usage = super().usage(completion)
        usage["prompt_tokens_details"]["cache_write_tokens"] = completion.cache_write_tokens
        cost = {"upstream_inference_cost": usage["cost"]}
        return usage | {"is_byok": False, "cost_details": cost}

    def headers(self, request: ChatRequest, attempt: int) -> Sequence[Header]:
        """Return the id of the generation."""
        return [(b"x-generation-id", _generation_id(request, attempt).encode())]

    def reply(
        self,
        request: ChatRequest,
        completion: Completion,
        attempt: int,
        fault: Fault | None = None,
    ) -> Reply:
        """Return the reply; where the request names models in its place, another one is the first.

        An error in the middle of an answer is that of the fault's status and code.
        """
        others = request.document.get("models")
        if fault is not None and fault.name == "other_model" and others:
            request, fault = replace(request, model=others[0]), None
        reply = super().reply(request, completion, attempt, fault)
        if fault is not None and fault.name in _INSURED:
            self._generations[_generation_id(request, attempt)]["total_cost"] = 0
            reply = _told(reply, fault)
        return reply.with_headers(self._cache_headers(request, completion))

    def error(self, form: ErrorForm) -> Reply:
        """Return an error whose code is its status, and whose type is in the metadata."""
        metadata = {"error_type": form.code or _TYPES.get(form.status, "server")}
        error = {"code": form.status, "message": form.message, "metadata": metadata}
        return json_reply(form.status, {"error": error})

    def models(self, model: str, prices: Prices) -> Payload:
        """Return the catalogue with one model; prices are text, in USD for one token."""
        return catalogue(model, prices)

    def look_up(self, path: str, query: Mapping[str, str], account: Account) -> Payload | ErrorForm:
        """Return what is known of a key, of the account, or of one request."""
        if path == "/key":
            return {"data": key_data(account)}
        if path == "/credits":
            return {"data": credits_data(account)}
        wanted = query.get("id", "")
        found = self._generations.get(wanted)
        if found is None:
            return ErrorForm(404, "", None, f"Generation {wanted} not found")
        return {"data": found}

    def _cache_headers(self, request: ChatRequest, completion: Completion) -> Sequence[Header]:
        key = _cache_key(request)
        if key is None or key not in self._kept:
            return ()
        kept, now = self._kept[key], self.clock()
        lives = [(b"x-openrouter-cache-ttl", b"%d" % (kept.until - now))]
        if not completion.from_cache:
            return [(b"x-openrouter-cache-status", b"MISS"), *lives]
        age = (b"x-openrouter-cache-age", b"%d" % (now - kept.since))
        return [(b"x-openrouter-cache-status", b"HIT"), age, *lives]


def _generation_id(request: ChatRequest, attempt: int) -> str:
    return f"gen-{request.prompt[:16]}-{attempt}"


def _cache_key(request: ChatRequest) -> bytes | None:
    """Return the place of an answer in the cache: by key and body; None where it is not wanted."""
    if request.headers.get(b"x-openrouter-cache") != b"true":
        return None
    asked = request.headers.get(b"authorization", b"") + json.dumps(request.document).encode()
    return hashlib.sha256(asked).digest()


def _cache_seconds(request: ChatRequest) -> int:
    asked = request.headers.get(b"x-openrouter-cache-ttl", b"")
    return int(asked) if asked.isdigit() else _CACHE_SECONDS


def _told(reply: Reply, fault: Fault) -> Reply:
    """Return a reply that broke off with the status and the type that the fault has."""
    document = json.loads(reply.body)
    error = document["choices"][0].get("error")
    if error is not None:
        error["code"] = fault.status or error["code"]
        error["metadata"]["error_type"] = fault.code or error["metadata"]["error_type"]
    return replace(json_reply(200, document), headers=reply.headers)
