"""Anthropic's Messages API (https://platform.claude.com/docs/en/api/messages).

Owns the shape of its replies and errors, and its prompt cache: what is marked is written
once and read by later requests until it was not used for its time to live
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar

from ondine_dagster.llm.prices import Prices, Rates
from ondine_dagster.simulator.chat import ChatRequest
from ondine_dagster.simulator.contents import CONTENTS, half
from ondine_dagster.simulator.dialects.anthropic_request import (
    forced_tool,
    marked_for,
    read_messages,
)
from ondine_dagster.simulator.dialects.dialect import Change, Dialect, ErrorForm, Headers
from ondine_dagster.simulator.limits import Clock
from ondine_dagster.simulator.refusals import anthropic_error
from ondine_dagster.simulator.replies import Completion
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster.simulator.wire import Header, Payload, Reply

# What a token costs that is read from the cache, and written to it, as a share of other input.
_READ = Fraction(1, 10)
_WRITE = {"5m": Fraction(5, 4), "1h": Fraction(2)}
_SECONDS = {"5m": 300, "1h": 3600}
# A shorter prefix is not cached, and nothing is said of it.
MIN_CACHED_TOKENS = 512

# The codes that come in `error.details`; the others that a fault may ask for are OpenAI's.
_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
        "ramp_limit_exceeded",
    }
)
_INVALID = "invalid_request_error"


def _content(change: Callable[[str], Any]) -> Change:
    """Change the text of the answer, or the arguments of its tool where it uses one."""

    def apply(payload: Payload) -> None:
        block = payload["content"][0]
        if block["type"] == "text":
            block["text"] = change(block["text"])
        else:
            block["input"] = _as_input(change(json.dumps(block["input"], ensure_ascii=False)))

    return apply


def _as_input(changed: Any) -> Any:
    """Return what a tool's arguments become: JSON where it is some."""
    try:
        return json.loads(changed)
    except (TypeError, ValueError):
        return changed


def _stop(
    reason: str | None, change: Callable[[str], Any] = lambda text: text, **more: Any
) -> Change:
    """Change the reason to stop, the content, and further keys of the message."""

    def apply(payload: Payload) -> None:
        _content(change)(payload)
        payload.update(stop_reason=reason, **more)

    return apply


def _refusal(category: str | None) -> Change:
    """Refuse: no content, and details that say why."""

    def apply(payload: Payload) -> None:
        details = {"type": "refusal", "category": category, "explanation": "It may do harm."}
        payload.update(content=[], stop_reason="refusal", stop_details=details)

    return apply


def _tool_use(payload: Payload) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    payload.update(content=[block], stop_reason="tool_use")


def _counts(change: Callable[[int], Any]) -> Change:
    """Change the token counts of the usage."""

    def apply(payload: Payload) -> None:
        for key in ("input_tokens", "output_tokens"):
            payload["usage"][key] = change(payload["usage"][key])

    return apply


def _other_model(payload: Payload) -> None:
    payload["model"] += "-fallback"


class Anthropic(Dialect):
    """The Messages API."""

    key_headers: ClassVar[tuple[bytes, ...]] = (b"x-api-key", b"authorization")
    rate_headers = "anthropic"
    errors: ClassVar[Mapping[str, ErrorForm]] = {
        "context_length": ErrorForm(
            400, _INVALID, None, "prompt is too long: 210000 tokens > 200000 maximum"
        ),
        "content_policy": ErrorForm(
            400, _INVALID, None, "Output blocked by content filtering policy"
        ),
        "insufficient_quota": ErrorForm(
            400, _INVALID, None, "Your credit balance is too low to access the Anthropic API."
        ),
        "401": ErrorForm(401, "authentication_error", None, "invalid x-api-key"),
        "402": ErrorForm(402, "billing_error", None, "There is a problem with your billing."),
        "404": ErrorForm(404, "not_found_error", None, "model: demo-model"),
        "413": ErrorForm(413, "request_too_large", None, "Request exceeds the maximum size"),
        "429": ErrorForm(429, "rate_limit_error", None, "This request would exceed a rate limit."),
        "503": ErrorForm(503, "api_error", None, "The service is not available."),
        "529": ErrorForm(529, "overloaded_error", None, "Overloaded"),
    }
    changes: ClassVar[Mapping[str, Change]] = {
        "missing_choices": lambda payload: payload.pop("content"),
        "empty_choices": lambda payload: payload.update(content=[]),
        "missing_message": lambda payload: payload.update(content=None),
        **{name: _content(change) for name, change in CONTENTS.items()},
        "refusal": _refusal("bio"),
        "length": _stop("max_tokens", half),
        "content_filter": _refusal(None),
        "tool_calls": _tool_use,
        "finish_unknown": _stop("solar_flare"),
        "finish_missing": lambda payload: payload.pop("stop_reason"),
        "pause_turn": _stop("pause_turn", half),
        "context_window": _stop("model_context_window_exceeded", half),
        "missing_usage": lambda payload: payload.pop("usage"),
        "negative_usage": _counts(lambda tokens: -tokens),
        "float_usage": _counts(lambda tokens: tokens + 0.5),
        "string_usage": _counts(str),
        "nan_usage": _counts(lambda tokens: float("nan")),
        "other_model": _other_model,
    }

    def __init__(self, clock: Clock) -> None:
        """`clock` gives seconds since 1970: a cached prefix lives by it."""
        super().__init__(clock)
        self._cached_until: dict[bytes, float] = {}

    def serves(self, path: str) -> bool:
        """Return whether `path` is that of messages."""
        return path == f"{self.base_path}/messages"

    def read(self, path: str, headers: Headers, body: bytes) -> ChatRequest:
        """Return the request, its system message as a first one. Raises BadRequest."""
        return read_messages(headers, body)

    def cache_use(self, request: ChatRequest, rules: TokenRules, tokens: int) -> tuple[int, int]:
        """Return what of the prompt was read from the cache, and what was written to it."""
        marked = marked_for(request)
        if marked is None:
            return super().cache_use(request, rules, tokens)
        prefix, _ = marked
        size = min(tokens, rules.count(prefix))
        if size < MIN_CACHED_TOKENS:
            return 0, 0
        known = self._cached_until.get(_prefix_key(request, prefix), 0) > self.clock()
        return (size, 0) if known else (0, size)

    def charged(self, request: ChatRequest, completion: Completion) -> None:
        """Keep what the request wrote to the cache or read there for its time to live, anew."""
        marked = marked_for(request)
        if marked is not None and completion.cached_tokens + completion.cache_write_tokens:
            prefix, lives = marked
            self._cached_until[_prefix_key(request, prefix)] = self.clock() + _SECONDS[lives]

    def prices(self, request: ChatRequest, prices: Prices) -> Prices:
        """Return the prices with those of the cache, which follow from that of other input."""
        _, lives = marked_for(request) or ("", "5m")
        write = _WRITE[lives]

        def with_cache(rates: Rates) -> Rates:
            return replace(
                rates,
                cached_input=round(rates.input * _READ),
                cache_write=round(rates.input * write),
            )

        tiers = tuple(replace(tier, rates=with_cache(tier.rates)) for tier in prices.tiers)
        return replace(prices, rates=with_cache(prices.rates), tiers=tiers)

    def payload(self, request: ChatRequest, completion: Completion, attempt: int) -> Payload:
        """Return a message."""
        tool = forced_tool(request.document)
        block: Payload = {"type": "text", "text": completion.text}
        reason = "end_turn"
        if tool is not None:
            block = {"type": "tool_use", "id": f"toolu_{request.prompt[:16]}", "name": tool["name"]}
            # arguments that were cut off are no JSON, and what comes instead is empty
            block["input"] = {} if completion.was_cut else json.loads(completion.text)
            reason = "tool_use"
        return {
            "id": f"msg_{request.prompt[:16]}_{attempt}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": [block],
            "stop_reason": "max_tokens" if completion.was_cut else reason,
            "stop_sequence": None,
            "stop_details": None,
            "usage": _usage(request, completion),
        }

    def headers(self, request: ChatRequest, attempt: int) -> Sequence[Header]:
        """Return the id of the request."""
        return [(b"request-id", f"req_{request.prompt[:16]}{attempt}".encode())]

    def error(self, form: ErrorForm) -> Reply:
        """Return an error, its code in the details where it is one of Anthropic's."""
        details = {"error_code": form.code} if form.code in _CODES else None
        reply = anthropic_error(form.status, form.message, details)
        return reply.with_headers([(b"request-id", b"req_simulator")])

    def models(self, model: str, prices: Prices) -> Payload:
        """Return the page with one model."""
        created = "2026-01-01T00:00:00Z"
        entry = {"type": "model", "id": model, "display_name": model, "created_at": created}
        return {"data": [entry], "has_more": False, "first_id": model, "last_id": model}


def _prefix_key(request: ChatRequest, prefix: str) -> bytes:
    return hashlib.sha256(json.dumps([request.model, prefix]).encode()).digest()


def _usage(request: ChatRequest, completion: Completion) -> Payload:
    """Return the usage; tokens of the cache stand beside the other input, not in it."""
    read, written = completion.cached_tokens, completion.cache_write_tokens
    _, lives = marked_for(request) or ("", "")
    for_an_hour = written if lives == "1h" else 0
    return {
        "input_tokens": completion.prompt_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - for_an_hour,
            "ephemeral_1h_input_tokens": for_an_hour,
        },
        "output_tokens": completion.completion_tokens,
        "output_tokens_details": {"thinking_tokens": completion.reasoning_tokens},
        "service_tier": "standard",
    }
