"""Ondine's section `llm` as ours: who serves the model, its key, its prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from ondine_dagster.component.from_ondine.original import Original, variables, with_variables
from ondine_dagster.spec.providers import PROVIDERS

# LiteLLM's prefixes (https://docs.litellm.ai/docs/providers) where they differ from our names.
_ROUTES = {
    "azure_openai": "azure",
    "hosted_vllm": "vllm",
    "ollama_chat": "ollama",
    "together_ai": "together",
}
# Providers that speak the protocol of OpenAI, by their own documentation.
_ADDRESSES = {
    "cerebras": "https://api.cerebras.ai/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
    "deepseek": "https://api.deepseek.com/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "mistral": "https://api.mistral.ai/v1",
    "moonshot": "https://api.moonshot.ai/v1",
    "xai": "https://api.x.ai/v1",
}
_MODES = {"tools": "tools", "json": "json_object", "json_schema": "json_schema"}
_NOT_NEEDED = {
    "enable_prefix_caching": "Ondine reads it nowhere. The system message always goes first, so "
    "that providers can cache it",
    "structured_output_mode": "Ondine reads it nowhere. Without `llm.structured` the model is "
    "asked for fields as it is known to take it",
    "router_config": "there is no router. A second model for rejected rows: `llm.fallback`; "
    "several keys: separate them by commas in the variable; several models behind OpenRouter: "
    "`llm.openrouter.models`",
    "cache_config": "not needed: the ledger keeps every answer, and nothing is paid twice",
    "custom_provider_id": "a provider of your own is a class: `llm.provider: package.module:Class`",
}


def llm_section(original: Original, *, with_fields: bool) -> dict[str, Any]:
    """Return our `llm`; `with_fields` tells whether answers have fields."""
    provider, name = _route(original)
    section: dict[str, Any] = {"provider": provider, "name": with_variables(name)}
    section |= _address(original, section)
    if section["provider"] == "azure":
        section |= _azure(original, section)
    section |= _key(original, section["provider"])
    section |= {"temperature": original.take("llm.temperature", 0)}
    for ours in ("max_tokens", "top_p"):
        if (value := original.take(f"llm.{ours}")) is not None:
            section[ours] = value
    if section.get("top_p") in (1, 1.0):  # Ondine's default, which says nothing
        del section["top_p"]
    elif "top_p" in section:
        original.means("llm.top_p", "Ondine never sends it, here it is sent")
    section |= _prices(original)
    if own_name := original.take("llm.provider_name"):
        section["provider_name"] = own_name
    section |= _mode(original, with_fields)
    section |= _extra(original)
    for key, why in _NOT_NEEDED.items():
        if original.has(f"llm.{key}"):
            original.left_out(f"llm.{key}", why)
    return section


def _route(original: Original) -> tuple[str, str]:
    """Return provider and model as Ondine routes them through LiteLLM."""
    provider = str(original.take("llm.provider", "litellm"))
    name = str(original.take("llm.model", ""))
    if provider == "litellm":
        prefix, slash, rest = name.partition("/")
        if slash:
            provider, name = prefix, rest
        else:
            provider = "anthropic" if name.startswith("claude") else "openai"
            original.means("llm.model", f"has no provider in front: taken as one of {provider}")
    name = name.removeprefix(f"{provider}/")
    return _ROUTES.get(provider, provider), name


def _address(original: Original, section: Mapping[str, Any]) -> dict[str, Any]:
    provider = section["provider"]
    url = with_variables(original.take("llm.base_url"))
    if provider == "azure":
        return {}
    if provider in PROVIDERS:
        entry = PROVIDERS[provider]
        if url is None or url.rstrip("/") == entry.base_url:
            return {}
        # a server of one's own under the name of a provider has neither its prices nor its key
        moved = {} if entry.local or not entry.prices else {"provider": "openai_compatible"}
        return {**moved, "base_url": url}
    known = _ADDRESSES.get(provider)
    key = f"{provider.upper().replace('-', '_').replace('.', '_')}_API_KEY"
    own = {"provider": "openai_compatible", "key_variable": key, "provider_name": provider}
    if url is None and known is None:
        url = f"{{{{ env('{key.replace('_API_KEY', '_BASE_URL')}') }}}}"
        original.means(
            "llm.provider" if original.has("llm.provider") else "llm.model",
            f"{provider} has no place here: it is asked as a server that speaks the protocol of "
            f"OpenAI. Put its address (up to its version path) in the place of {url}",
        )
    return {**own, "base_url": url or known}


def _azure(original: Original, section: Mapping[str, Any]) -> dict[str, Any]:
    endpoint = with_variables(original.take("llm.azure_endpoint"))
    url = endpoint or with_variables(original.take("llm.base_url"))
    if url is None:
        url = "{{ env('AZURE_OPENAI_ENDPOINT') }}"
    deployment = with_variables(original.take("llm.azure_deployment"))
    azure: dict[str, Any] = {}
    if deployment and deployment != section["name"]:
        azure["model"] = section["name"]
    if version := original.take("llm.api_version"):
        azure["api_version"] = with_variables(version)
    if original.take("llm.use_managed_identity"):
        azure["credential"] = "managed_identity"
    if original.take("llm.azure_ad_token"):
        azure["credential"] = "token"
        original.means(
            "llm.azure_ad_token",
            "secrets never stand in a declaration: put the token into AZURE_OPENAI_AD_TOKEN",
        )
    moved = {"base_url": url, "name": deployment or section["name"]}
    return {**moved, "azure": azure} if azure else moved


def _key(original: Original, provider: str) -> dict[str, Any]:
    declared = original.take("llm.api_key")
    if declared is None:
        return {}
    usual = PROVIDERS[provider].key_variable
    named = variables(declared)
    if len(named) == 1 and declared == f"${{{named[0]}}}":
        return {} if named[0] == usual else {"key_variable": named[0]}
    original.left_out(
        "llm.api_key",
        f"keys never stand in a declaration: put it into {usual or 'an environment variable'}",
    )
    return {}


def _prices(original: Original) -> dict[str, Any]:
    """Return prices per million tokens."""
    found: dict[str, int | float] = {}
    for kind in ("input", "output"):
        key = f"llm.{kind}_cost_per_1k_tokens"
        if (price := original.take(key)) is None:
            continue
        try:
            million = Decimal(str(price)) * 1000
        except InvalidOperation:
            original.left_out(key, "is no number")
            continue
        whole = million == million.to_integral_value()
        found[f"{kind}_per_million_usd"] = int(million) if whole else float(million)
    if len(found) == 1:
        kind = next(iter(found)).partition("_")[0]
        original.left_out(
            f"llm.{kind}_cost_per_1k_tokens",
            "one price alone says nothing of the cost: declare both in `llm.prices`, or none where "
            "`ondine-dagster models` lists the model",
        )
        return {}
    return {"prices": found} if found else {}


def _mode(original: Original, with_fields: bool) -> dict[str, Any]:
    mode = original.take("llm.instructor_mode", "auto")
    if mode == "auto":
        return {}
    if mode in _MODES and with_fields:
        return {"structured": _MODES[mode]}
    why = "is for answers with fields" if mode in _MODES else f"{mode!r} is unknown"
    original.left_out("llm.instructor_mode", f"{why}; see `llm.structured`")
    return {}


def _extra(original: Original) -> dict[str, Any]:
    extra = original.take("llm.extra_params", {})
    found = {}
    for name, value in extra.items() if isinstance(extra, Mapping) else ():
        key = f"llm.extra_params.{name}"
        if name in ("seed", "top_p", "max_tokens", "temperature"):
            found[name] = original.take(key, value)
        else:
            original.left_out(
                key, "parameters are not passed on as they are; see the section `llm` for what is"
            )
    return found
