"""Completions over the wire, good and faulty. Pure.

Owns the shape of every reply that has status 200. Which fault applies is decided in `faults`, the
errors are in `refusals`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ondine_dagster.llm.prices import PICODOLLARS_PER_USD, Prices
from ondine_dagster.simulator.answers import answer
from ondine_dagster.simulator.chat import ChatRequest
from ondine_dagster.simulator.faults import Fault
from ondine_dagster.simulator.refusals import refusal_reply
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster.simulator.wire import Payload, Reply, html_reply, json_reply

_CREATED = 1_700_000_000  # a constant, so that equal requests get equal bytes


@dataclass(frozen=True, slots=True)
class Completion:
    """A good answer before any fault: its text, its tokens, and its cost in picodollars."""

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: int
    reports_cost: bool


def complete(
    request: ChatRequest, rules: TokenRules, prices: Prices, reports_cost: bool
) -> Completion:
    """Return the simulated model's answer to `request`."""
    whole = answer(request.messages, request.schema)
    text, completion_tokens, was_cut = rules.fit(whole, request.ceiling)
    prompt_tokens = request.prompt_tokens(rules)
    cached_tokens = rules.cached(prompt_tokens)
    return Completion(
        text=text,
        finish_reason="length" if was_cut else "stop",
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        reasoning_tokens=min(rules.reasoning, completion_tokens),
        cost=prices.cost(prompt_tokens, completion_tokens, cached_tokens),
        reports_cost=reports_cost,
    )


def completion_reply(request: ChatRequest, completion: Completion, attempt: int) -> Reply:
    """Return the good reply."""
    return json_reply(200, _payload(request, completion, attempt))


def faulty_reply(request: ChatRequest, completion: Completion, attempt: int, fault: Fault) -> Reply:
    """Return the reply of a fault that has one."""
    if fault.name in _BODIES:
        return _BODIES[fault.name](fault)
    if fault.name not in _CHANGES:
        return refusal_reply(fault)
    payload = _payload(request, completion, attempt)
    _CHANGES[fault.name](payload)
    return json_reply(200, payload)


def _payload(request: ChatRequest, completion: Completion, attempt: int) -> Payload:
    return {
        "id": f"chatcmpl-{request.prompt[:16]}-{attempt}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": request.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "finish_reason": completion.finish_reason,
            }
        ],
        "usage": _usage(completion),
    }


def _usage(completion: Completion) -> Payload:
    usage: Payload = {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": completion.reasoning_tokens},
    }
    if completion.reports_cost:
        usage["cost"] = completion.cost / PICODOLLARS_PER_USD
    return usage


def _error_in_200(fault: Fault) -> Reply:
    metadata = {} if fault.code is None else {"error_type": fault.code}
    error = {"code": fault.status or 502, "message": "Provider returned error"}
    return json_reply(200, {"error": error | {"metadata": metadata}})


_BODIES: Mapping[str, Callable[[Fault], Reply]] = {
    "html_200": lambda fault: html_reply(200),
    "error_in_200": _error_in_200,
    "malformed_json": lambda fault: Reply(200, b'{"id": "chatcmpl-1", "choices": [{"message": '),
    "empty_body": lambda fault: Reply(200, b""),
    "not_an_object": lambda fault: json_reply(200, ["not", "an", "object"]),
}


def _content(change: Callable[[str], Any]) -> Callable[[Payload], None]:
    """Change the content of the message."""

    def apply(payload: Payload) -> None:
        message = payload["choices"][0]["message"]
        message["content"] = change(message["content"])

    return apply


def _finish(
    reason: str | None, change: Callable[[str], Any] = lambda text: text, **message: Any
) -> Callable[[Payload], None]:
    """Change the finish reason, the content, and further keys of the message."""

    def apply(payload: Payload) -> None:
        choice = payload["choices"][0]
        choice["finish_reason"] = reason
        choice["message"] |= {"content": change(choice["message"]["content"]), **message}

    return apply


def _counts(change: Callable[[int], Any]) -> Callable[[Payload], None]:
    """Change the token counts of the usage."""

    def apply(payload: Payload) -> None:
        for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
            payload["usage"][key] = change(payload["usage"][key])

    return apply


def _cost(cost: object) -> Callable[[Payload], None]:
    """Report this cost, whether or not the provider reports costs."""

    def apply(payload: Payload) -> None:
        payload["usage"]["cost"] = cost

    return apply


def _finish_error(payload: Payload) -> None:
    _finish("error", _half)(payload)
    metadata = {"error_type": "provider_unavailable"}
    error = {"code": 502, "message": "Provider disconnected", "metadata": metadata}
    payload["choices"][0]["error"] = error


def _other_model(payload: Payload) -> None:
    payload["model"] += "-fallback"


def _half(text: str) -> str:
    return text[: len(text) // 2]


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object that `text` is, empty where it is none."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _nan(text: str) -> str:
    """Put NaN where the first number of the answer stands, else where its first value stands."""
    document = _object(text)
    if not document:
        return "NaN"
    numbers = [key for key, value in document.items() if type(value) in (int, float)]
    document[(numbers or list(document))[0]] = float("nan")
    return json.dumps(document, ensure_ascii=False)


def _duplicate_key(text: str) -> str:
    document = _object(text)
    if not document:
        return '{"answer": "one", "answer": "two"}'
    return f"{text.rstrip()[:-1]}, {json.dumps(next(iter(document)))}: null}}"


def _surrogate(escaped: bool) -> Callable[[str], str]:
    """Put a lone surrogate into the last text of the answer, escaped in the inner JSON or not."""

    def change(text: str) -> str:
        document = _object(text)
        texts = [key for key, value in document.items() if isinstance(value, str)]
        if not texts:
            return text + "\ud83d"
        document[texts[-1]] += "\ud83d"
        return json.dumps(document, ensure_ascii=escaped)

    return change


_TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

_CHANGES: Mapping[str, Callable[[Payload], Any]] = {
    "missing_choices": lambda payload: payload.pop("choices"),
    "empty_choices": lambda payload: payload.update(choices=[]),
    "missing_message": lambda payload: payload["choices"][0].pop("message"),
    "null_content": _content(lambda text: None),
    "blank_content": _content(lambda text: " \n\t "),
    "non_string_content": _content(lambda text: {"text": text}),
    "wrong_schema": _content(lambda text: '{"unexpected": ["shape"]}'),
    "broken_content": _content(_half),
    "nan": _content(_nan),
    "duplicate_keys": _content(_duplicate_key),
    "lone_surrogate": _content(_surrogate(escaped=False)),
    "escaped_surrogate": _content(_surrogate(escaped=True)),
    "refusal": _finish("stop", lambda text: None, refusal="I'm sorry, I can't help with that."),
    "length": _finish("length", _half),
    "content_filter": _finish("content_filter", lambda text: None),
    "tool_calls": _finish("tool_calls", lambda text: None, tool_calls=[_TOOL_CALL]),
    "finish_error": _finish_error,
    "finish_unknown": _finish("solar_flare"),
    "finish_missing": lambda payload: payload["choices"][0].pop("finish_reason"),
    "missing_usage": lambda payload: payload.pop("usage"),
    "negative_usage": _counts(lambda tokens: -tokens),
    "float_usage": _counts(lambda tokens: tokens + 0.5),
    "string_usage": _counts(str),
    "nan_usage": _counts(lambda tokens: float("nan")),
    "missing_cost": lambda payload: payload["usage"].pop("cost", None),
    "zero_cost": _cost(0),
    "negative_cost": _cost(-0.01),
    "string_cost": _cost("free of charge"),
    "other_model": _other_model,
}
