"""OpenRouter: one address for the models of many providers.

Owns what differs from chat completions (https://openrouter.ai/docs/api-reference/overview): which
providers may serve, who asks, what a request cost, errors that come with a 200, answers from
OpenRouter's own cache, and the look-up of a request whose answer was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr
from pydantic_core import from_json

from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.classify import failure_inside
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.prices import Cost
from ondine_dagster.llm.prompt_cache import marked
from ondine_dagster.llm.provider import GENERATION_ID, Completion, Schema, Usage, Verdict
from ondine_dagster.llm.reply_json import as_count, as_money, as_object, as_text
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Llm
from ondine_dagster.spec.openrouter import MaxPrice, OpenRouterSettings

_UNNAMED = Failure(
    ErrorClass.TRANSIENT,
    ErrorCode.SERVER_ERROR,
    "HTTP 200 with an error that says nothing of itself",
    Evidence.REFUSED,
)
_NO_TOKEN = replace(_UNNAMED, message="HTTP 200 without a token or a reason to end")
# no provider of a model that exists may serve: told by the same status as a model that does not
_NONE_FITS = (
    ". Where the model exists, no provider of it fits: see llm.openrouter; where none takes the "
    "fields, llm.structured or llm.openrouter.require_parameters"
)
CACHE_HIT = "response_cache_hit"  # a flag of an answer
# for a request with one's own key OpenRouter takes 5 % of what it costs at the provider
# (https://openrouter.ai/docs/guides/overview/auth/byok)
_OWN_KEY_PERCENT = 105
_BROKEN_OFF = frozenset({ErrorCode.REPLY_HAS_ERROR, ErrorCode.FINISH_ERROR})
_EMPTY = frozenset({ErrorCode.CONTENT_NULL, ErrorCode.CONTENT_BLANK})
_A_FILE = '"type":"file"'  # inside JSON strings its quotes are escaped
_READ_BY_THE_MODEL = b',"plugins":[{"id":"file-parser","pdf":{"engine":"native"}}]}'
_SAMPLING = ("temperature", "top_p", "seed")
# the settings that go into `provider` as they are
_ROUTING = (
    "order",
    "only",
    "ignore",
    "allow_fallbacks",
    "require_parameters",
    "data_collection",
    "zdr",
    "quantizations",
    "sort",
    "preferred_min_throughput",
    "preferred_max_latency",
)


class OpenRouter(ChatCompletions):
    """One model, and those in its place, behind OpenRouter."""

    static_messages = 0

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        self._settings = llm.openrouter or OpenRouterSettings()
        super().__init__(llm, schema)
        self._own_headers = _headers(self._settings)
        ttl = self._settings.prompt_cache
        self._mark = compact_json({"type": "ephemeral", "ttl": ttl}) if ttl else ""

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers, with those that say who asks."""
        return super().headers(key) | self._own_headers

    def body(self, messages_json: str, ceiling: int) -> bytes:
        """Return the request body. Documents go to models that read them by themselves.

        For others OpenRouter would read them first, at a price for each page that is no token's
        (https://openrouter.ai/docs/guides/overview/multimodal/pdfs).
        """
        body = super().body(messages_json, ceiling)
        return body[:-1] + _READ_BY_THE_MODEL if _A_FILE in messages_json else body

    def worst_case(self, prompt_tokens: int, ceiling: int) -> int:
        """Return the picodollars that a request can cost at most, under one's own key too."""
        return -(-super().worst_case(prompt_tokens, ceiling) * _OWN_KEY_PERCENT // 100)

    def cost(self, completion: Completion) -> Cost:
        """Return what the user pays: to OpenRouter, and to the provider under the user's own key.

        OpenRouter also tells what the provider billed where the key is its own: that is in its
        cost already.
        """
        told = cost_told(completion)
        if told is not None:
            return Cost(told, "provider")
        fee, unpaid = completion.cost_reported or 0, replace(completion, cost_reported=None)
        computed = super().cost(unpaid)
        amount = None if computed.amount is None else computed.amount + fee
        return Cost(amount, computed.source)

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion | Failure:
        """Return what a complete reply is.

        OpenRouter bills nothing where the answer broke off with an error, or where no token came
        and no reason to end (https://openrouter.ai/docs/guides/features/zero-completion-insurance).
        Such a request failed as with the status of its error.
        """
        if not 200 <= status < 300:
            result = super().parse(status, headers, body)
            assert isinstance(result, Failure)
            fits = _NONE_FITS if result.code is ErrorCode.NOT_FOUND else ""
            remote_id = headers.get(GENERATION_ID)
            return replace(result, message=result.message + fits, remote_id=remote_id)
        completion = _with_headers(self._read(body), headers)
        if completion.cost_reported or (completion.is_byok and cost_told(completion) != 0):
            return completion  # whatever came, it was billed: under one's own key by the provider
        if completion.code in _BROKEN_OFF:
            failure = failure_inside(headers, body, self.key_variable) or _UNNAMED
            return replace(failure, evidence=Evidence.REFUSED)
        return _NO_TOKEN if _is_empty(completion) else completion

    def _messages(self, messages_json: str) -> str:
        """Return the messages, marked for the cache where they stop being the same for all rows."""
        messages = super()._messages(messages_json)
        # a message of its own may tell the schema, and comes first
        added = messages.count('"role":') - messages_json.count('"role":')
        same = self.static_messages + added
        return marked(messages, same, self._mark) if self._mark and same else messages

    def _parameters(self, llm: Llm) -> dict[str, Any]:
        settings = self._settings
        effort = settings.reasoning_effort
        own = {
            "reasoning": effort and {"effort": effort},
            "models": settings.models,
            "provider": _routing(settings, by_schema=bool(self._fields.parameters)),
            "user": settings.user,
            "session_id": settings.session_id,
        }
        sampling = {name: llm.sampling[name] for name in _SAMPLING if name in llm.sampling}
        return sampling | {name: value for name, value in own.items() if value}


def cost_told(completion: Completion) -> int | None:
    """Return what the user pays in picodollars, as far as OpenRouter tells all of it; else None."""
    fee, upstream = completion.cost_reported, completion.upstream_cost
    if not completion.is_byok or fee is None:
        return fee
    return None if upstream is None else fee + upstream


def generation_url(base_url: str, remote_id: str) -> str:
    """Return where a request is looked up."""
    return f"{base_url}/generation?id={quote(remote_id, safe='')}"


def read_generation(body: bytes) -> Completion | None:
    """Return what a look-up tells of a lost answer: all but its text. None where it tells no cost.

    https://openrouter.ai/docs/api-reference/generations
    """
    try:
        document = from_json(body)
    except ValueError:
        return None
    data = as_object(as_object(document).get("data"))
    own_key = data.get("is_byok") is True
    # under one's own key the credits that were used are OpenRouter's fee alone
    cost = as_money(data.get("usage" if own_key else "total_cost"))
    if cost is None:
        return None
    return Completion(
        Verdict.INVALID,
        "",
        usage=Usage(
            prompt_tokens=as_count(data.get("native_tokens_prompt")),
            completion_tokens=as_count(data.get("native_tokens_completion")),
            cached_tokens=as_count(data.get("native_tokens_cached")),
            reasoning_tokens=as_count(data.get("native_tokens_reasoning")),
        ),
        model_served=as_text(data.get("model")),
        provider_served=as_text(data.get("provider_name")),
        remote_id=as_text(data.get("id")),
        cost_reported=cost,
        upstream_cost=as_money(data.get("upstream_inference_cost")),
        is_byok=own_key,
    )


def _routing(settings: OpenRouterSettings, *, by_schema: bool) -> dict[str, Any]:
    """Return the routing that is declared; a schema is for providers that know of such."""
    declared = settings.model_dump(mode="json", include=set(_ROUTING))
    routing = {name: declared[name] for name in _ROUTING if declared[name] not in (None, [])}
    if by_schema:
        routing.setdefault("require_parameters", True)
    if settings.max_price is not None:
        routing["max_price"] = _max_price(settings.max_price)
    return routing


def _max_price(most: MaxPrice) -> dict[str, float]:
    """Return the price on the wire: USD for a million tokens, and for a request."""
    return {
        "prompt": float(most.input_per_million_usd),
        "completion": float(most.output_per_million_usd),
        "request": float(most.per_request_usd),
    }


def _headers(settings: OpenRouterSettings) -> dict[str, str]:
    """Return the headers that say who asks, and for how long an answer is kept."""
    seconds = settings.response_cache_seconds
    named = {
        "http-referer": settings.referer,
        "x-openrouter-title": settings.title,
        "x-openrouter-categories": ",".join(settings.categories),
        "x-openrouter-cache": "true" if seconds else None,
        "x-openrouter-cache-ttl": str(seconds) if seconds else None,
    }
    return {name: value for name, value in named.items() if value}


def _with_headers(completion: Completion, headers: Mapping[str, str]) -> Completion:
    """Return the answer with what only the headers tell of it."""
    remote_id = completion.remote_id or headers.get(GENERATION_ID)
    if headers.get("x-openrouter-cache-status", "").upper() != "HIT":
        return replace(completion, remote_id=remote_id)
    cost = completion.cost_reported or 0
    flags = (*completion.flags, CACHE_HIT)
    return replace(completion, remote_id=remote_id, cost_reported=cost, flags=flags)


def _is_empty(completion: Completion) -> bool:
    nothing = completion.code in _EMPTY and completion.usage.completion_tokens == 0
    return nothing and not completion.finish_reason
