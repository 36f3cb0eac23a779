"""What only OpenRouter knows: which of its providers serve a request, and at which price.

Owns the section `llm.openrouter` and the spelling of OpenRouter's models. The wire format is in
`llm/openrouter.py`.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ondine_dagster.spec.base import (
    QUESTION,
    REQUEST,
    FilledText,
    Flag,
    Fraction,
    Part,
    Usd,
    Whole,
)
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.urls import server_url

_PREFIX = "openrouter/"
# models that choose a model: the only ones whose vendor is OpenRouter itself
# (https://openrouter.ai/docs/guides/routing/routers)
ROUTERS = frozenset({"auto", "free"})
_FORM = "write vendor/model, as in anthropic/claude-sonnet-4 or meta-llama/llama-3.3-70b:free"
_SLUG = re.compile(r"[a-z0-9][a-z0-9._/-]*")
_CATEGORY = re.compile(r"[a-z-]{1,30}")
_MOST_MODELS = 3  # a longer list is refused with a 400
_MOST_CATEGORIES = 2  # of one request; more are dropped


def wire_name(name: str) -> str:
    """Return the model as OpenRouter spells it: `vendor/model`, without the prefix `openrouter/`.

    `openrouter/auto` is a model of its own. Raises ValueError for what is no model of OpenRouter,
    and for variants that search the web.
    """
    rest = name.removeprefix(_PREFIX)
    if rest != name and rest.partition(":")[0] in ROUTERS:
        rest = name
    vendor, _, model = rest.partition("/")
    if not vendor or not model or "/" in model:
        raise ValueError(f"is {shown(name)}, which is no model of OpenRouter: {_FORM}")
    if model.endswith(":online"):
        raise ValueError(f"is {shown(name)}: web search is not supported; leave `:online` out")
    return rest


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError(
            f"lists {shown(value)}; it must be a provider's slug at OpenRouter, as in deepinfra"
        )
    return value


def _a_few(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if value == ():
        raise ValueError("is empty; it must list at least one model, or be left out")
    if value is not None and len(value) > _MOST_MODELS:
        raise ValueError(f"lists {len(value)} models; OpenRouter takes {_MOST_MODELS} at most")
    return value


def _header_text(value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isprintable()):
        raise ValueError("must be plain ASCII text: it is sent in an HTTP header")
    return value


def _referer(value: str | None) -> str | None:
    return None if value is None else _header_text(server_url(value))


def _category(value: str) -> str:
    if not _CATEGORY.fullmatch(value):
        raise ValueError(f"lists {shown(value)}; it must be in small letters, as in cli-agent")
    return value


def _two(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > _MOST_CATEGORIES:
        raise ValueError(f"lists {len(value)} categories; it may list {_MOST_CATEGORIES}")
    return value


Slug = Annotated[FilledText, AfterValidator(_slug)]
Model = Annotated[FilledText, AfterValidator(wire_name)]
Quantization = Literal["int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32", "unknown"]


class MaxPrice(Part):
    """The most that a provider may charge: dearer ones are not asked, and budgets use it."""

    place: ClassVar[Location] = ("llm", "openrouter", "max_price")

    input_per_million_usd: Annotated[Usd, REQUEST] = Field(
        description="USD for a million prompt tokens.", examples=[0.5]
    )
    output_per_million_usd: Annotated[Usd, REQUEST] = Field(
        description="USD for a million completion tokens.", examples=[2]
    )
    per_request_usd: Annotated[Usd, REQUEST] = Field(
        default=0, validate_default=True, description="USD for each request.", examples=[0.001]
    )


class OpenRouterSettings(Part):
    """How OpenRouter chooses among its providers, and who asks.

    https://openrouter.ai/docs/guides/routing/provider-selection
    """

    place: ClassVar[Location] = ("llm", "openrouter")

    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None, QUESTION
    ] = Field(
        default=None,
        description="How long a reasoning model thinks. What it thinks is paid as completion "
        "tokens and counts towards `max_tokens`. Not sent when absent.",
        examples=["low"],
    )
    models: Annotated[tuple[Model, ...] | None, AfterValidator(_a_few), QUESTION] = Field(
        default=None,
        description="Up to three models that answer where `llm.name` cannot, in this order. Which "
        "one did is in `model_served`. The most expensive one counts for budgets.",
        examples=[["openai/gpt-4o-mini"]],
    )
    order: Annotated[tuple[Slug, ...], REQUEST] = Field(
        default=(),
        description="Providers to try first, in this order.",
        examples=[["deepinfra", "together"]],
    )
    only: Annotated[tuple[Slug, ...], REQUEST] = Field(
        default=(), description="The only providers that may serve.", examples=[["azure"]]
    )
    ignore: Annotated[tuple[Slug, ...], REQUEST] = Field(
        default=(), description="Providers that may not serve.", examples=[["deepinfra"]]
    )
    allow_fallbacks: Annotated[Flag | None, REQUEST] = Field(
        default=None,
        description="Whether other providers may serve when the first cannot. Default: yes.",
        examples=[False],
    )
    require_parameters: Annotated[Flag | None, REQUEST] = Field(
        default=None,
        description="Whether a provider must know every parameter of the request; one that does "
        "not ignores it silently. Default: yes where `output.fields` are declared.",
        examples=[True],
    )
    data_collection: Annotated[Literal["allow", "deny"] | None, REQUEST] = Field(
        default=None,
        description="Whether providers that may store data can serve. Default: as your account "
        "says.",
        examples=["deny"],
    )
    zdr: Annotated[Flag | None, REQUEST] = Field(
        default=None,
        description="Whether only providers that keep no data at all may serve.",
        examples=[True],
    )
    quantizations: Annotated[tuple[Quantization, ...], REQUEST] = Field(
        default=(),
        description="The quantizations that a provider's copy of the model may have.",
        examples=[["fp8", "bf16"]],
    )
    sort: Annotated[Literal["price", "throughput", "latency"] | None, REQUEST] = Field(
        default=None,
        description="What to choose providers by. Default: the cheapest that are up share the "
        "requests.",
        examples=["throughput"],
    )
    preferred_min_throughput: Annotated[Fraction | None, REQUEST] = Field(
        default=None,
        gt=0,
        description="Tokens per second; slower providers come last.",
        examples=[50],
    )
    preferred_max_latency: Annotated[Fraction | None, REQUEST] = Field(
        default=None,
        gt=0,
        description="Seconds to the first token; slower providers come last.",
        examples=[3],
    )
    max_price: MaxPrice | None = Field(
        default=None,
        description="The most that a provider may charge. Without it a more expensive provider "
        "than the price table says may serve, and a run that is billed more than it set aside "
        "stops.",
    )
    prompt_cache: Annotated[Literal["5m", "1h"] | None, REQUEST] = Field(
        default=None,
        description="Lets Anthropic's and Alibaba's models keep what is the same for all rows, "
        "system message and examples, in their cache for so long. Writing it costs 1.25 times (1h: "
        "twice) its price, reading a tenth. Others cache automatically.",
        examples=["5m"],
    )
    response_cache_seconds: Annotated[Whole | None, REQUEST] = Field(
        default=None,
        ge=1,
        le=86_400,
        description="For so long OpenRouter answers the same request of the same key again, for "
        "nothing: also one whose answer was lost on the way. `retry` within this time gets the "
        "same answer.",
        examples=[3600],
    )
    user: Annotated[FilledText | None, REQUEST] = Field(
        default=None, description="Who asks, as OpenRouter's activity shows it.", examples=["etl"]
    )
    session_id: Annotated[FilledText | None, REQUEST] = Field(
        default=None,
        max_length=256,
        description="Groups requests in OpenRouter's logs and keeps them with one provider.",
        examples=["nightly-labels"],
    )
    referer: Annotated[FilledText | None, AfterValidator(_referer), REQUEST] = Field(
        default=None,
        description="The address of your app, for OpenRouter's rankings (`HTTP-Referer`).",
        examples=["https://example.com"],
    )
    title: Annotated[FilledText | None, AfterValidator(_header_text), REQUEST] = Field(
        default=None,
        description="The name of your app there (`X-OpenRouter-Title`).",
        examples=["Review labels"],
    )
    categories: Annotated[
        tuple[Annotated[str, AfterValidator(_category)], ...], AfterValidator(_two), REQUEST
    ] = Field(
        default=(),
        description="The categories of your app there (`X-OpenRouter-Categories`).",
        examples=[["cloud-agent"]],
    )

    def refuse_contradictions(self) -> None:
        """Refuse a provider that both must and must not serve."""
        both = sorted({*self.only, *self.order} & set(self.ignore))
        if both:
            raise refused_at(("ignore",), f"lists {both[0]!r}, which `only` or `order` names", None)
