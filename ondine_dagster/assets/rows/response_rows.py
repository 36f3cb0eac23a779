"""The columns that say how rows have ended, and their samples where they have several.

Imported only where a stage runs, as pyarrow is heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa  # noqa: TID253 (this module is imported lazily)

from ondine_dagster.assets.rows.row_events import event_rows
from ondine_dagster.assets.shared import tables
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import RowOutcome
from ondine_dagster.storage.parquet_files import to_table


def response_rows(
    raw: pa.Table,
    outcomes: Sequence[RowOutcome],
    keys: Sequence[bytes | None],
    pipeline: Pipeline,
) -> pa.Table:
    """Return rows of `responses` from how they ended; `keys` are those of their questions."""
    columns = {
        "_row_key": raw.column("_row_key"),
        "_position": raw.column("_position"),
        **_ends(pipeline, outcomes, keys),
    }
    schema = tables.responses_schema(pipeline.dataset.samples)
    if "samples" in schema.names:
        columns["samples"] = _samples(pipeline, outcomes, schema.field("samples").type)
    return to_table(columns, schema)


def _samples(pipeline: Pipeline, outcomes: Sequence[RowOutcome], kind: pa.ListType) -> pa.ListArray:
    """Return the samples of each row as a list; NULL where the row was not asked."""
    each = [sample for one in outcomes for sample in one.samples]
    ends = _ends(pipeline, each, [one.answer_key for one in each])
    inner = kind.value_type
    rows = to_table(ends, pa.schema(list(inner))).combine_chunks().to_struct_array()
    places = [0, *accumulate(len(one.samples) for one in outcomes)]
    starts = [place if one.samples else None for place, one in zip(places, outcomes, strict=False)]
    whole = pa.concat_arrays(rows.chunks) if rows.num_chunks else pa.array([], inner)
    return pa.ListArray.from_arrays(pa.array([*starts, places[-1]], pa.int32()), whole)


def _ends(
    pipeline: Pipeline, outcomes: Sequence[RowOutcome], keys: Sequence[bytes | None]
) -> dict[str, Any]:
    """Return how rows, or samples of them, have ended."""
    return {
        "outcome": [one.outcome for one in outcomes],
        "text": [one.text for one in outcomes],
        "finish_reason": [one.finish_reason for one in outcomes],
        "model_requested": [one.model_requested or pipeline.provider.model for one in outcomes],
        "cached_tokens": [one.usage.cached_tokens for one in outcomes],
        "reasoning_tokens": [one.usage.reasoning_tokens for one in outcomes],
        "error_class": [one.error_class for one in outcomes],
        "error_code": [one.code for one in outcomes],
        "error_message": [one.message for one in outcomes],
        "answer_key": keys,
        "attempt_id": [one.attempt for one in outcomes],
        "events": [event_rows(one.events) for one in outcomes],
        **shared_columns(outcomes, prefix=""),
    }


def shared_columns(outcomes: Sequence[RowOutcome], *, prefix: str) -> dict[str, Any]:
    """Return the columns that all three files have, under `prefix`."""
    return {
        f"{prefix}model_served": [one.model_served for one in outcomes],
        f"{prefix}prompt_tokens": [one.usage.prompt_tokens for one in outcomes],
        f"{prefix}completion_tokens": [one.usage.completion_tokens for one in outcomes],
        f"{prefix}cost_usd": tables.usd_array([one.cost for one in outcomes]),
        f"{prefix}unknown_usd": tables.usd_array([one.unknown_cost for one in outcomes]),
        f"{prefix}cost_source": [one.cost_source for one in outcomes],
        f"{prefix}attempts": [one.attempts for one in outcomes],
        f"{prefix}latency_ms": [one.latency_ms for one in outcomes],
        f"{prefix}flags": [",".join(one.flags) or None for one in outcomes],
    }
