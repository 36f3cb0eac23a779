"""Chat completions of any server that speaks OpenAI's wire format.

Owns the request JSON and the reading of the reply. Sends core fields only: `model`, `messages`,
declared sampling parameters, the ceiling, and `response_format` where fields are declared
(https://platform.openai.com/docs/api-reference/chat/create).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import SecretStr
from pydantic_core import from_json

from ondine_dagster.llm.classify import classify_error, classify_inside
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.llm.prices import Cost, picodollars
from ondine_dagster.llm.pricing import Pricing
from ondine_dagster.llm.provider import Completion, Usage, Verdict
from ondine_dagster.llm.structured import CHARACTERS_REPLACED, compact_json, wire_schema
from ondine_dagster.spec import Llm, OutputField

# Chat templates wrap each message and the conversation in tokens that no byte of ours shows.
_TOKENS_PER_MESSAGE = 16
_TOKENS_PER_REQUEST = 64
_MOST_TOKENS = 10**9
_MOST_USD = 10**6  # of one answer; above it is nonsense

_FINISH_CODES = {
    "content_filter": (Verdict.REFUSED, ErrorCode.CONTENT_FILTERED),
    "tool_calls": (Verdict.INVALID, ErrorCode.TOOL_CALLS),
    "function_call": (Verdict.INVALID, ErrorCode.TOOL_CALLS),
    "error": (Verdict.INVALID, ErrorCode.FINISH_ERROR),
}


class OpenAICompatible:
    """One model behind `{base_url}/chat/completions`."""

    def __init__(self, llm: Llm, fields: Mapping[str, OutputField]) -> None:
        self.name = llm.provider
        self.model = llm.name
        self.identity = llm.model_identity
        self.base_url = llm.base_url
        self.url = f"{llm.base_url}/chat/completions"
        self.ceiling = llm.max_tokens
        self.raised_ceiling = llm.raised_max_tokens
        self._pricing = Pricing(llm)
        self.price_version = self._pricing.version
        schema = wire_schema(fields)
        self._schema_bytes = len(compact_json(schema).encode()) if schema else 0
        self._head = f'{{"model":{compact_json(llm.name)},"messages":'
        self._ceiling_field = f',"{llm.max_tokens_field}":'
        self._tail = _tail(llm, schema)

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers; `Authorization` only where there is a key."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key.get_secret_value()}"
        return headers

    def body(self, messages_json: str, ceiling: int) -> bytes:
        """Return the request body; the messages are already canonical JSON, so they are spliced."""
        parts = (self._head, messages_json, self._ceiling_field, str(ceiling), self._tail)
        return "".join(parts).encode()

    def prompt_tokens_bound(self, messages_json: str) -> int:
        """Return the only safe bound: one token per byte, the schema twice, and the wrapping.

        The JSON of the messages is at least as long as their text; 2 or more messages are counted
        by their `"role"` keys, which text inside JSON strings cannot contain unescaped.
        """
        messages = messages_json.count('"role":')
        return (
            len(messages_json.encode())
            + 2 * self._schema_bytes
            + _TOKENS_PER_MESSAGE * messages
            + _TOKENS_PER_REQUEST
        )

    def worst_case(self, prompt_tokens: int, ceiling: int) -> int:
        """Return the picodollars that a request within these bounds can cost at most."""
        return self._pricing.worst_case(prompt_tokens, ceiling)

    def cost(self, completion: Completion) -> Cost:
        """Return what a received body cost."""
        return self._pricing.cost(completion)

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion | Failure:
        """Return what a complete reply is: an answer, an unusable body, or a failure."""
        if not 200 <= status < 300:
            return classify_error(status, headers, body)
        completion = parse_completion(body)
        if completion.code is ErrorCode.REPLY_HAS_ERROR:
            return classify_inside(body) or completion
        return completion


def _tail(llm: Llm, schema: dict[str, Any] | None) -> str:
    """Return what follows the ceiling in a request."""
    rest: dict[str, Any] = {}
    for name in ("temperature", "top_p", "seed"):
        if getattr(llm, name) is not None:
            rest[name] = getattr(llm, name)
    if schema:
        rest["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return "," + compact_json(rest)[1:] if rest else "}"


def parse_completion(body: bytes) -> Completion:
    """Read a 200 reply. Each way in which it can be unusable has its own code."""
    try:
        reply, flags = _load(body), []
    except _Repaired as found:
        reply, flags = found.reply, [CHARACTERS_REPLACED]
    except (ValueError, RecursionError) as error:
        not_finite = isinstance(error, _NotFinite)
        code = ErrorCode.REPLY_NOT_FINITE if not_finite else ErrorCode.REPLY_NOT_JSON
        return Completion(Verdict.INVALID, body.decode("utf-8", "replace"), code)
    if not isinstance(reply, dict):
        text = body.decode("utf-8", "replace")
        return Completion(Verdict.INVALID, text, ErrorCode.REPLY_NOT_OBJECT)
    return _read(reply, body, flags)


def _read(reply: dict[str, Any], body: bytes, flags: list[str]) -> Completion:
    counted = _object(reply.get("usage"))
    usage = _usage(counted)
    if not usage.complete:
        flags.append("usage_missing")
    model = _text(reply.get("model"))
    if model is None:
        flags.append("model_missing")
    cost, readable = _reported_cost(reply, counted)
    if not readable:
        flags.append("cost_unreadable")
    is_byok = counted.get("is_byok")
    verdict, text, code, finish = _content(reply)
    return Completion(
        verdict=verdict,
        text=body.decode("utf-8", "replace") if text is None else text,
        code=code,
        finish_reason=finish,
        usage=usage,
        model_served=model,
        provider_served=_text(reply.get("provider")),
        remote_id=_text(reply.get("id")),
        cost_reported=cost,
        upstream_cost=_money(_object(counted.get("cost_details")).get("upstream_inference_cost")),
        is_byok=is_byok if isinstance(is_byok, bool) else None,
        flags=tuple(flags),
    )


_Content = tuple[Verdict, str | None, ErrorCode | None, str | None]


def _content(reply: dict[str, Any]) -> _Content:
    choices = reply.get("choices")
    if reply.get("error") and not choices:
        return Verdict.INVALID, None, ErrorCode.REPLY_HAS_ERROR, None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Verdict.INVALID, None, ErrorCode.NO_CHOICES, None
    finish = choices[0].get("finish_reason")
    finish = None if finish is None else str(finish)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return Verdict.INVALID, None, ErrorCode.NO_MESSAGE, finish
    content = message.get("content")
    if isinstance(message.get("refusal"), str) and not content:
        return Verdict.REFUSED, message["refusal"], ErrorCode.REFUSED, finish
    return _judge(content, finish)


def _judge(content: object, finish: str | None) -> _Content:
    text = content if isinstance(content, str) else None
    if finish == "length":  # paid for, but cut: the partial text is kept
        return Verdict.TRUNCATED, text or "", ErrorCode.TRUNCATED, finish
    if finish in _FINISH_CODES:
        verdict, code = _FINISH_CODES[finish]
        return verdict, text, code, finish
    if finish not in (None, "stop"):
        return Verdict.INVALID, text, ErrorCode.FINISH_UNKNOWN, finish
    if content is None:
        return Verdict.INVALID, None, ErrorCode.CONTENT_NULL, finish
    if text is None:
        return Verdict.INVALID, None, ErrorCode.CONTENT_NOT_TEXT, finish
    if not text.strip():
        return Verdict.INVALID, None, ErrorCode.CONTENT_BLANK, finish
    return Verdict.OK, text, None, finish


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt = _object(usage.get("prompt_tokens_details"))
    completion = _object(usage.get("completion_tokens_details"))
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(prompt.get("cached_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
        cache_write_tokens=_count(prompt.get("cache_write_tokens")),
    )


def _reported_cost(reply: Mapping[str, Any], usage: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Return what the provider says it billed, and whether that could be read.

    It stands in the usage; beside it in replies of old (OpenRouter).
    """
    told = usage.get("cost")
    if told is None:
        told = reply.get("cost")
    cost = _money(told)
    return cost, told is None or cost is not None


def _money(value: Any) -> int | None:
    """Return USD as picodollars; what is no amount is unknown, which is not 0."""
    if type(value) not in (int, float) or not 0 <= value <= _MOST_USD:
        return None
    return picodollars(Decimal(str(value)))  # the digits that were sent, no binary fraction


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    """Return a token count; what is not a whole number of zero or more is unknown.

    So is nonsense: its price would not fit the ledger's integers.
    """
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


class _NotFinite(ValueError):
    """NaN or Infinity in a reply: no JSON, though many parsers take it."""


class _Repaired(ValueError):
    """A reply with half a surrogate pair or bad UTF-8; `reply` has U+FFFD in its place."""

    def __init__(self, reply: Any) -> None:
        super().__init__("characters replaced")
        self.reply = reply


def _load(body: bytes) -> Any:
    """Parse strictly and fast; look closer only where that fails."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        pass
    parsed = json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse_constant)
    raise _Repaired(without_surrogates(parsed))


def _refuse_constant(name: str) -> Any:
    raise _NotFinite(name)


def without_surrogates(value: Any) -> Any:
    """Return JSON `value` with every lone surrogate replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    return value
