"""How the rows of a dataset go together in requests: what the engine is told, and what people see.

Imported where a stage runs: the engine's part of packs needs the ledger's values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.engine.pack_sizes import PackPlan
from ondine_dagster.ledger.estimates import ASSUMED_PART_OF_CEILING, learnt
from ondine_dagster.llm.output_limits import most_completion_tokens

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def pack_plan(pipeline: Pipeline, connection: Connection | None) -> PackPlan | None:
    """Return how the rows of a dataset go together; None where each goes alone.

    `connection` is one to the ledger, which knows how long answers are; None: there is none yet.
    """
    if pipeline.packing is None:
        return None
    packing, provider = pipeline.packing
    known = learnt(connection, provider, pipeline.name) if connection is not None else None
    rows = pipeline.dataset.batching.rows_per_request
    assumed = pipeline.provider.ceiling / ASSUMED_PART_OF_CEILING
    return PackPlan(
        packing,
        provider,
        rows=None if rows == "auto" else rows,
        completion_tokens=known.completion_tokens if known else assumed,
        most_completion_tokens=most_completion_tokens(pipeline.dataset.llm),
    )
