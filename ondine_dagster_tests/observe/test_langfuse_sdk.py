"""What is sent to Langfuse says the same as its own SDK would, by the SDK's own account."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langfuse import Langfuse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.tracing import trace_id
from ondine_dagster_tests.observe.pushing import InMemory, destination, fill, push

KIND = "langfuse.observation.type"
USAGE = "langfuse.observation.usage_details"
COST = "langfuse.observation.cost_details"


@pytest.fixture
def by_the_sdk() -> dict[str, Any]:
    """Return the attributes of one generation as the SDK exports it."""
    exporter = InMemorySpanExporter()
    client = Langfuse(
        public_key="pk-of-this-test",
        secret_key="sk-of-this-test",
        base_url="http://127.0.0.1:9",
        tracer_provider=TracerProvider(),
        span_exporter=exporter,
    )
    generation = client.start_observation(
        name="chat m",
        as_type="generation",
        model="m-2024",
        model_parameters={"max_tokens": 100},
        input=[{"content": "hello", "role": "user"}],
        output="yes",
        metadata={"row_key": "r0"},
        usage_details={"input": 60, "output": 5},
        cost_details={"total": 1.5e-6},
        level="ERROR",
        status_message="capacity: rate_limited",
    )
    generation.end()
    client.flush()
    (span,) = exporter.get_finished_spans()
    client.shutdown()
    return dict(span.attributes or {})


def test_a_generation_has_the_attributes_of_the_sdk(
    ledger: Ledger, by_the_sdk: dict[str, Any]
) -> None:
    fill(ledger.database, 1, prompt_tokens=60, completion_tokens=5, cost=1_500_000)
    memory = InMemory()
    push(ledger.database, destination(kind="langfuse"), memory)
    ours = memory.spans[0]
    said = {**ours.common, **ours.attributes, **ours.texts}
    told_of_failures = {"langfuse.observation.level", "langfuse.observation.status_message"}
    theirs = {name for name in by_the_sdk if name.startswith("langfuse.observation.")}
    assert theirs - told_of_failures <= said.keys()
    assert said[KIND] == by_the_sdk[KIND]
    for counts in (USAGE, COST):
        assert json.loads(str(said[counts])) == json.loads(by_the_sdk[counts])


def test_a_trace_has_the_id_that_the_sdk_makes_of_its_names() -> None:
    seed = "run-1|reviews/responses|rows-00000"
    ours = trace_id("run-1", "reviews", "rows-00000")
    assert ours.hex() == Langfuse.create_trace_id(seed=seed)
