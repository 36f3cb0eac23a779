"""The names that Langfuse gives to attributes of spans.

https://langfuse.com/integrations/native/opentelemetry#property-mapping; the names are those of
its SDK 5.
"""

from __future__ import annotations

from collections.abc import Sequence

from ondine_dagster.observe.requests import Request, Root
from ondine_dagster.observe.spans import (
    Attributes,
    Row,
    Value,
    Vocabulary,
    trace_name,
    usd,
    why_failed,
)

_OWN = "langfuse.observation."
_METADATA = "langfuse.observation.metadata."


class LangfuseVocabulary(Vocabulary):
    """Generations, with session, usage and cost where Langfuse looks for them."""

    def __init__(self, environment: str | None = None) -> None:
        self._environment = environment

    def root(self, root: Root, partition: str) -> Attributes:
        """Return the attributes of a root span."""
        metadata: dict[str, Value | None] = {"partition": partition, "run_scope": root.run_scope}
        return {
            f"{_OWN}type": "span",
            **self._trace(root.run_id, root.dataset, partition),
            **_metadata(root.dataset, metadata),
        }

    def request(self, request: Request, partition: str, rows: Sequence[Row]) -> Attributes:
        """Return the attributes of a request's span, without texts."""
        why = why_failed(request, rows)
        metadata: dict[str, Value | None] = {
            "partition": partition,
            "attempt": request.number,
            "attempt_id": request.id.hex(),
            "kind": request.kind,
            "state": request.state,
            "provider": request.provider,
            "provider_served": request.provider_served,
            "model_requested": request.model_requested,
            "response_id": request.remote_id,
            "cost_source": request.cost_source,
            "error_class": request.error_class,
            "error_code": request.code,
            "rows": len(rows) if len(rows) != 1 else None,
            "row_key": rows[0].key if len(rows) == 1 else None,
            "finish_reason": rows[0].asked.finish_reason if len(rows) == 1 else None,
        }
        found: Attributes = {
            f"{_OWN}type": "generation",
            **self._trace(request.run_id, request.dataset, partition),
            f"{_OWN}model.name": request.model_served or request.model_requested,
            f"{_OWN}model.parameters": f'{{"max_tokens": {request.ceiling}}}',
            **_metadata(request.dataset, metadata),
        }
        if usage := _usage(request):
            found[f"{_OWN}usage_details"] = str(usage).replace("'", '"')  # JSON, and faster
        if request.cost is not None:
            found[f"{_OWN}cost_details"] = f'{{"total": {usd(request.cost)}}}'
        return found | _level(why)

    def row(self, request: Request, partition: str, row: Row) -> Attributes:
        """Return the attributes of a row's span, without texts."""
        asked = row.asked
        metadata: dict[str, Value | None] = {
            "partition": partition,
            "row_key": row.key,
            "attempt": request.number,
            "verdict": asked.verdict,
            "error_code": asked.code,
            "finish_reason": asked.finish_reason,
            "cost_share_usd": None if asked.cost_share is None else usd(asked.cost_share),
        }
        return {
            f"{_OWN}type": "span",
            **self._trace(request.run_id, request.dataset, partition),
            **_metadata(request.dataset, metadata),
            **_level((asked.code or asked.verdict or request.state) if asked.failed else None),
        }

    def texts(self, row: Row) -> dict[str, str]:
        """Return what was sent for a row, and what came back."""
        found = {f"{_OWN}input": row.messages, f"{_OWN}output": row.answer}
        return {name: text for name, text in found.items() if text is not None}

    def _trace(self, run_id: str, dataset: str, partition: str) -> Attributes:
        found: Attributes = {
            "session.id": run_id,
            "langfuse.trace.name": trace_name(dataset, partition),
            "langfuse.trace.tags": [dataset],
        }
        if self._environment:
            found["langfuse.environment"] = self._environment
        return found


def _metadata(dataset: str, values: dict[str, Value | None]) -> Attributes:
    found: Attributes = {f"{_METADATA}dataset": dataset}
    for name, value in values.items():
        if value is not None:
            found[_METADATA + name] = value
    return found


def _level(why: str | None) -> Attributes:
    return {} if why is None else {f"{_OWN}level": "ERROR", f"{_OWN}status_message": why}


def _usage(request: Request) -> dict[str, int]:
    """Return tokens in parts that add up: Langfuse sums what it is given."""
    found: dict[str, int] = {}
    cached, written = request.cached_tokens or 0, request.cache_write_tokens or 0
    thought = request.reasoning_tokens or 0
    if request.prompt_tokens is not None:
        found["input"] = max(request.prompt_tokens - cached - written, 0)
    if request.completion_tokens is not None:
        found["output"] = max(request.completion_tokens - thought, 0)
    parts = {
        "input_cached_tokens": cached,
        "input_cache_creation": written,
        "output_reasoning_tokens": thought,
    }
    return found | {name: count for name, count in parts.items() if count}
