"""The names that Langfuse gives to attributes of spans.

https://langfuse.com/integrations/native/opentelemetry#property-mapping; the names are those of
its SDK 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ondine_dagster.observe.requests import Request, Root
from ondine_dagster.observe.spans import (
    Attributes,
    Row,
    Value,
    Vocabulary,
    trace_name,
    usd,
    why_failed,
    why_row_failed,
)

_METADATA = "langfuse.observation.metadata."
_TYPE, _LEVEL = "langfuse.observation.type", "langfuse.observation.level"
_WHY = "langfuse.observation.status_message"
_INPUT, _OUTPUT = "langfuse.observation.input", "langfuse.observation.output"
_MODEL = "langfuse.observation.model.name"
_PARAMETERS = "langfuse.observation.model.parameters"
_ATTEMPT_ID, _RESPONSE_ID = f"{_METADATA}attempt_id", f"{_METADATA}response_id"
_ROW_KEY, _FINISH_REASON = f"{_METADATA}row_key", f"{_METADATA}finish_reason"
_VERDICT, _COST_SHARE = f"{_METADATA}verdict", f"{_METADATA}cost_share_usd"
_USAGE, _COST = "langfuse.observation.usage_details", "langfuse.observation.cost_details"


class LangfuseVocabulary(Vocabulary):
    """Generations, with session, usage and cost where Langfuse looks for them."""

    def __init__(self, environment: str | None = None) -> None:
        self._environment = environment

    def root(self, root: Root, partition: str) -> Attributes:
        """Return the attributes of a root span."""
        found = self._trace(root.run_id, root.dataset, partition)
        found[_TYPE] = "span"
        return found | _metadata({"partition": partition, "run_scope": root.run_scope})

    def request(self, request: Request, rows: Sequence[Row]) -> Attributes:
        """Return what is said of a request alone, without texts."""
        found: Attributes = {_ATTEMPT_ID: request.id.hex()}
        if request.remote_id is not None:
            found[_RESPONSE_ID] = request.remote_id
        if len(rows) == 1:
            found[_ROW_KEY] = rows[0].key
            if (reason := rows[0].asked.finish_reason) is not None:
                found[_FINISH_REASON] = reason
        else:
            found[f"{_METADATA}rows"] = len(rows)
        if usage := _usage(request):
            found[_USAGE] = str(usage).replace("'", '"')  # JSON, and faster
        if request.cost is not None:
            found[_COST] = f'{{"total": {usd(request.cost)}}}'
        why = why_failed(request, rows)
        if why is None:
            return found
        codes = {"error_class": request.error_class, "error_code": request.code}
        return found | _metadata(codes) | _level(why)

    def common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of many requests. What is as usual is not said."""
        metadata: dict[str, Value | None] = {
            "partition": partition,
            "attempt": request.number,
            "kind": request.kind if request.kind != "first" else None,
            "state": request.state if request.state != "settled" else None,
            "provider": request.provider,
            "provider_served": request.provider_served,
            "model_requested": request.model_requested,
            "cost_source": request.cost_source,
        }
        return {
            **self._trace(request.run_id, request.dataset, partition),
            _TYPE: "generation",
            _MODEL: request.model_served or request.model_requested,
            _PARAMETERS: f'{{"max_tokens": {request.ceiling}}}',
            **_metadata(metadata),
        }

    def row(self, request: Request, row: Row) -> Attributes:
        """Return what is said of a row of a pack alone, without texts."""
        asked = row.asked
        found: Attributes = {_ROW_KEY: row.key}
        if asked.verdict is not None:
            found[_VERDICT] = asked.verdict
        if asked.finish_reason is not None:
            found[_FINISH_REASON] = asked.finish_reason
        if asked.cost_share is not None:
            found[_COST_SHARE] = usd(asked.cost_share)
        why = why_row_failed(request, row)
        if why is None:
            return found
        return found | _metadata({"error_code": asked.code or request.code}) | _level(why)

    def row_common(self, request: Request, partition: str) -> Attributes:
        """Return what is said of the rows of many packs."""
        found = self._trace(request.run_id, request.dataset, partition)
        found[_TYPE] = "span"
        return found | _metadata({"partition": partition, "attempt": request.number})

    def texts(self, row: Row) -> dict[str, str]:
        """Return what was sent for a row, and what came back."""
        found: dict[str, str] = {}
        if row.sent is not None:
            found[_INPUT] = row.sent.text
        if row.answer is not None:
            found[_OUTPUT] = row.answer
        return found

    def _trace(self, run_id: str, dataset: str, partition: str) -> Attributes:
        found: Attributes = {
            "session.id": run_id,
            "langfuse.trace.name": trace_name(dataset, partition),
            f"{_METADATA}dataset": dataset,
        }
        if self._environment:
            found["langfuse.environment"] = self._environment
        return found


def _metadata(values: Mapping[str, Value | None]) -> Attributes:
    return {_METADATA + name: value for name, value in values.items() if value is not None}


def _level(why: str | None) -> Attributes:
    return {} if why is None else {_LEVEL: "ERROR", _WHY: why}


def _usage(request: Request) -> dict[str, int]:
    """Return tokens in parts that add up: Langfuse sums what it is given."""
    found: dict[str, int] = {}
    cached, written = request.cached_tokens or 0, request.cache_write_tokens or 0
    thought = request.reasoning_tokens or 0
    if request.prompt_tokens is not None:
        found["input"] = max(request.prompt_tokens - cached - written, 0)
    if request.completion_tokens is not None:
        found["output"] = max(request.completion_tokens - thought, 0)
    if cached:
        found["input_cached_tokens"] = cached
    if written:
        found["input_cache_creation"] = written
    if thought:
        found["output_reasoning_tokens"] = thought
    return found
