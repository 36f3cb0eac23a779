"""Azure OpenAI: chat completions of a deployment, by key or Entra token, behind a content filter.

Owns both addresses: the v1 API, and the older one that has deployment and API version in it
(https://learn.microsoft.com/en-us/azure/foundry/openai/api-version-lifecycle).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from pydantic import SecretStr

from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.llm.provider import Completion, Schema
from ondine_dagster.spec import AzureSettings, Llm

_NO_ACCESS = (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN)
_ROLE = "does the identity have the role `Cognitive Services OpenAI User` on this resource?"


class Azure(ChatCompletions):
    """One deployment of a resource."""

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        super().__init__(llm, schema)
        own = llm.azure or AzureSettings()
        self._by_key = own.credential == "key"
        self._by_identity = own.key_variable is None
        self.url = _url(llm.endpoint, llm.name, own.api_version)

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers: a key in Azure's own, a token as a bearer."""
        if key is None or not self._by_key:
            return super().headers(key)
        return {**super().headers(None), "api-key": key.get_secret_value()}

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion | Failure:
        """Return what a complete reply is; an answer that no filter has seen is flagged."""
        reply = super().parse(status, headers, body)
        if isinstance(reply, Completion):
            unseen = b"content_filter_results" in body and _filter_failed(body)
            return replace(reply, flags=(*reply.flags, "filter_failed")) if unseen else reply
        if self._by_identity and reply.code in _NO_ACCESS:
            return replace(reply, message=f"{reply.message} ({_ROLE})")
        return reply


def _url(endpoint: str, deployment: str, api_version: str | None) -> str:
    """Return where completions are posted, for a resource's address with or without its path."""
    root = endpoint.removesuffix("/v1").removesuffix("/openai")
    if api_version is None:
        return f"{root}/openai/v1/chat/completions"
    path = f"/openai/deployments/{quote(deployment, safe='')}/chat/completions"
    return f"{root}{path}?api-version={api_version}"


def _filter_failed(body: bytes) -> bool:
    """Return whether the filter could not look at the answer: then it lets it pass, and says so."""
    try:
        choice = json.loads(body)["choices"][0]
        return "error" in choice["content_filter_results"]
    except (ValueError, LookupError, TypeError):
        return False
