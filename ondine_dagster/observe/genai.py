"""The names that OpenTelemetry's conventions for generative AI give to attributes of spans.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans; what they do not know of is under
`ondine.`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring as _quoted
from typing import Any
from urllib.parse import urlsplit

from ondine_dagster.observe.requests import Request, Root
from ondine_dagster.observe.spans import Attributes, Row, Value, Vocabulary, usd

_to_json = json.JSONEncoder(ensure_ascii=False).encode
# in the order of `Request.tokens`
_USAGE = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
)
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
        found: Attributes = {"ondine.attempt_id": request.id.hex(), "ondine.rows": len(rows)}
        if len(rows) == 1:
            found["ondine.row_key"] = rows[0].key
        if request.remote_id is not None:
            found["gen_ai.response.id"] = request.remote_id
        if reasons := [one.asked.finish_reason for one in rows if one.asked.finish_reason]:
            found["gen_ai.response.finish_reasons"] = list(dict.fromkeys(reasons))
        for name, count in zip(_USAGE, request.tokens, strict=True):
            if count is not None:
                found[name] = count
        if request.cost is not None:
            found["ondine.cost_usd"] = usd(request.cost)
        if request.error_class is not None:
            found["ondine.error_class"] = request.error_class
        if error := request.code or request.error_class or _error_type(request, rows):
            found["error.type"] = error
        return found

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
        found: Attributes = {"ondine.row_key": row.key}
        if asked.verdict is not None:
            found["ondine.verdict"] = asked.verdict
        if asked.cost_share is not None:
            found["ondine.cost_share_usd"] = usd(asked.cost_share)
        if error := _error_type(request, [row]):
            found["error.type"] = error
        return found

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
        if row.sent is not None:
            found["gen_ai.input.messages"] = _messages(row.sent.messages)
        if row.answer is not None:
            reason = row.asked.finish_reason or "unknown"
            answer = _message("assistant", _text_part(row.answer), finish_reason=reason)
            found["gen_ai.output.messages"] = f"[{answer}]"
        return found


def _known(values: Mapping[str, Value | None]) -> Attributes:
    return {name: value for name, value in values.items() if value is not None}


def _error_type(request: Request, rows: Sequence[Row]) -> str | None:
    for row in rows:
        if row.asked.failed:
            return request.code or request.error_class or row.asked.code or row.asked.verdict
    return None


def _messages(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return messages as the conventions have them: each with a list of typed parts, as JSON."""
    shown = [_message(one["role"], _parts(one["content"])) for one in messages]
    return f"[{', '.join(shown)}]"


def _parts(content: Any) -> str:
    if type(content) is str:
        return _text_part(content)
    return ", ".join(
        _text_part(part["text"]) if part.get("type") == "text" else _to_json(part)
        for part in content
    )


def _message(role: str, parts: str, **more: str) -> str:
    rest = "".join(f', "{name}": {_quoted(value)}' for name, value in more.items())
    return f'{{"role": {_quoted(role)}, "parts": [{parts}]{rest}}}'


def _text_part(text: str) -> str:
    return f'{{"type": "text", "content": {_quoted(text)}}}'
