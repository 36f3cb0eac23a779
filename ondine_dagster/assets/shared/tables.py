"""The columns of the stages' files: fixed and declared, never inferred from data.

Imported only where a stage runs, as pyarrow is heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import pyarrow as pa  # noqa: TID253 (this module is imported lazily)

from ondine_dagster.spec import Output
from ondine_dagster.spec.columns import AGREEMENT_COLUMNS
from ondine_dagster.spec.output_field import NestedField

# what went wrong with a row, one after the other
EVENTS = pa.list_(
    pa.struct(
        [
            ("at", pa.timestamp("ms", "UTC")),
            ("event", pa.string()),
            ("attempt", pa.int64()),
            ("code", pa.string()),
            ("message", pa.string()),
            ("latency_ms", pa.int64()),
        ]
    )
)
USD = pa.decimal128(18, 12)  # exact to the picodollar

PROMPTS = pa.schema(
    [
        ("_row_key", pa.string()),
        ("_position", pa.int64()),
        ("messages", pa.string()),
        ("answer_key", pa.binary(32)),
        ("estimated_tokens", pa.int64()),
        ("messages_digest", pa.binary(32)),
        ("model_digest", pa.binary(32)),
        ("sampling_digest", pa.binary(32)),
        ("schema_digest", pa.binary(32)),
        ("error_class", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)

RESPONSES = pa.schema(
    [
        ("_row_key", pa.string()),
        ("_position", pa.int64()),
        ("outcome", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("model_requested", pa.string()),
        ("model_served", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("cost_usd", USD),
        ("unknown_usd", USD),
        ("cost_source", pa.string()),
        ("attempts", pa.int64()),
        ("latency_ms", pa.int64()),
        ("error_class", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("flags", pa.string()),
        ("answer_key", pa.binary(32)),
        ("attempt_id", pa.binary(16)),
        ("events", EVENTS),
    ]
)

LINEAGE = pa.schema(
    [
        ("_row_key", pa.string()),
        ("_position", pa.int64()),
        ("_outcome", pa.string()),
        ("_model_served", pa.string()),
        ("_prompt_tokens", pa.int64()),
        ("_completion_tokens", pa.int64()),
        ("_cost_usd", USD),
        ("_unknown_usd", USD),
        ("_cost_source", pa.string()),
        ("_attempts", pa.int64()),
        ("_latency_ms", pa.int64()),
        ("_flags", pa.string()),
        ("_answer_key", pa.string()),
    ]
)

AGREEMENT = pa.schema(
    [
        (name, kind)
        for name, kind in zip(AGREEMENT_COLUMNS, (pa.float64(), pa.string()), strict=True)
    ]
)

ERRORS = pa.schema(
    [
        ("_error_class", pa.string()),
        ("_error_code", pa.string()),
        ("_error_message", pa.string()),
        ("_raw_text", pa.string()),
        ("_events", EVENTS),
    ]
)

_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "json": pa.string(),
}


def output_schema(output: Output) -> pa.Schema:
    """Return the declared output columns, typed as they are declared."""
    if output.fields:
        return pa.schema([(name, _type(one)) for name, one in output.fields_by_column().items()])
    return pa.schema([(name, _TYPES[kind]) for name, kind in output.column_types().items()])


def _type(field: NestedField) -> pa.DataType:
    if field.items is not None:
        return pa.list_(_type(field.items))
    if field.properties:
        return pa.struct([(name, _type(one)) for name, one in field.properties.items()])
    return _TYPES[field.type]


def results_schema(source: pa.Schema, output: Output, samples: int = 1) -> pa.Schema:
    """Return source columns, output columns, those about several samples, lineage."""
    agreement = AGREEMENT if samples > 1 else ()
    return pa.schema([*source, *output_schema(output), *agreement, *LINEAGE])


def responses_schema(samples: int) -> pa.Schema:
    """Return the columns of `responses`; of several samples each has the same as its row."""
    if samples == 1:
        return RESPONSES
    return RESPONSES.append(pa.field("samples", pa.list_(pa.struct(list(RESPONSES)[2:]))))


def rejected_schema(source: Iterable[pa.Field]) -> pa.Schema:
    """Return source columns, what went wrong, lineage."""
    return pa.schema([*source, *ERRORS, *LINEAGE])


def usd_array(picodollars: Sequence[int]) -> pa.Array:
    """Return integer picodollars as exact USD, without a Decimal per value."""
    whole = pa.array(picodollars, pa.int64()).cast(pa.decimal128(19, 0)).cast(pa.decimal128(31, 0))
    return pa.Array.from_buffers(pa.decimal128(31, 12), len(whole), whole.buffers()).cast(USD)


def picodollars(amount: Decimal | None) -> int:
    """Return USD from a file as picodollars."""
    return 0 if amount is None else int(amount.scaleb(12))
