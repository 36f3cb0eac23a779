"""The names that OpenTelemetry's conventions for generative AI give to attributes of spans.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans; what they do not know of is under
`ondine.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ondine_dagster.observe.requests import Request, Root
from ondine_dagster.observe.spans import Attributes, Row, Value, Vocabulary, usd

_to_json = json.JSONEncoder(ensure_ascii=False).encode
# our names of providers where the conventions have another
_PROVIDERS = {"azure": "azure.ai.openai", "openai_compatible": "openai"}


class GenAiVocabulary(Vocabulary):
    """Client spans of chat completions."""

    def root(self, root: Root, partition: str) -> Attributes:
        """Return the attributes of a root span."""
        return _known(
            {
                "ondine.dataset": root.dataset,
                "ondine.partition": partition,
                "ondine.run_id": root.run_id,
                "ondine.run_scope": root.run_scope,
                "session.id": root.run_id,
            }
        )

    def request(self, request: Request, rows: Sequence[Row]) -> Attributes:
        """Return what is said of a request alone, without texts."""
        reasons = [one.asked.finish_reason for one in rows if one.asked.finish_reason]
        return _known(
            {
                "gen_ai.response.id": request.remote_id,
                "gen_ai.response.finish_reasons": list(dict.fromkeys(reasons)) or None,
                "gen_ai.usage.input_tokens": request.prompt_tokens,
                "gen_ai.usage.output_tokens": request.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": request.cached_tokens,
                "gen_ai.usage.cache_creation.input_tokens": request.cache_write_tokens,
                "gen_ai.usage.reasoning.output_tokens": request.reasoning_tokens,
                "error.type": request.code or request.error_class or _error_type(request, rows),
                "ondine.row_key": rows[0].key if len(rows) == 1 else None,
                "ondine.rows": len(rows),
                "ondine.attempt_id": request.id.hex(),
                "ondine.error_class": request.error_class,
                "ondine.cost_usd": None if request.cost is None else usd(request.cost),
            }
        )

    def common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of many requests."""
        server = urlsplit(request.base_url)
        return _known(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": _PROVIDERS.get(request.provider, request.provider),
                "gen_ai.request.model": request.model_requested,
                "gen_ai.request.max_tokens": request.ceiling,
                "gen_ai.response.model": request.model_served,
                "server.address": server.hostname,
                "server.port": server.port,
                "session.id": request.run_id,
                "ondine.dataset": request.dataset,
                "ondine.partition": partition,
                "ondine.run_id": request.run_id,
                "ondine.attempt": request.number,
                "ondine.kind": request.kind,
                "ondine.state": request.state,
                "ondine.provider_served": request.provider_served,
                "ondine.cost_source": request.cost_source,
            }
        )

    def row(self, request: Request, row: Row) -> Attributes:
        """Return what is said of a row of a pack alone, without texts."""
        asked = row.asked
        return _known(
            {
                "ondine.row_key": row.key,
                "ondine.verdict": asked.verdict,
                "ondine.cost_share_usd": None
                if asked.cost_share is None
                else usd(asked.cost_share),
                "error.type": _error_type(request, [row]),
            }
        )

    def row_common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of the rows of many packs."""
        return {
            "session.id": request.run_id,
            "ondine.dataset": request.dataset,
            "ondine.partition": partition,
            "ondine.run_id": request.run_id,
            "ondine.attempt": request.number,
        }

    def texts(self, row: Row) -> dict[str, str]:
        """Return what was sent for a row, and what came back."""
        found: dict[str, str] = {}
        if row.messages is not None:
            found["gen_ai.input.messages"] = _messages(row.messages)
        if row.answer is not None:
            part = {"type": "text", "content": row.answer}
            reason = row.asked.finish_reason or "unknown"
            answer = {"role": "assistant", "parts": [part], "finish_reason": reason}
            found["gen_ai.output.messages"] = _to_json([answer])
        return found


def _known(values: Mapping[str, Value | None]) -> Attributes:
    return {name: value for name, value in values.items() if value is not None}


def _error_type(request: Request, rows: Sequence[Row]) -> str | None:
    failed = [one.asked for one in rows if one.asked.failed]
    if not failed:
        return None
    return request.code or request.error_class or failed[0].code or failed[0].verdict


def _messages(text: str) -> str:
    """Return messages as the conventions have them: each with a list of typed parts."""
    shown = [{"role": one["role"], "parts": _parts(one["content"])} for one in json.loads(text)]
    return _to_json(shown)


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    return [
        {"type": "text", "content": part["text"]} if part.get("type") == "text" else part
        for part in content
    ]
