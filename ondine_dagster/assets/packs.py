"""How the rows of a dataset go together in requests: for the engine, and for estimates."""

from __future__ import annotations

from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.ledger.estimates import ASSUMED_PART_OF_CEILING
from ondine_dagster.ledger.learnt import Learnt
from ondine_dagster.ledger.pack_estimates import PackedRequests
from ondine_dagster.llm.output_limits import most_completion_tokens
from ondine_dagster.llm.pack_size import PackPlan


def pack_plan(pipeline: Pipeline, known: Learnt | None) -> PackPlan | None:
    """Return how the rows of a dataset go together; None where each goes alone.

    `known` is what was learnt of earlier answers: how long they are.
    """
    if pipeline.packing is None:
        return None
    packing, provider = pipeline.packing
    rows = pipeline.dataset.batching.rows_per_request
    assumed = pipeline.provider.ceiling / ASSUMED_PART_OF_CEILING
    return PackPlan(
        packing,
        provider,
        rows=None if rows == "auto" else rows,
        completion_tokens=(known.together or known).completion_tokens if known else assumed,
        most_completion_tokens=most_completion_tokens(pipeline.dataset.llm),
    )


def packed_requests(pipeline: Pipeline, known: Learnt | None) -> PackedRequests | None:
    """Return what requests for several rows are made of; None where each row goes alone.

    So do rows with attachments, and rows of which each has instructions or examples of its own.
    """
    plan, prompt, renderer = pack_plan(pipeline, known), pipeline.dataset.prompt, pipeline.renderer
    own_system = bool(pipeline.prompt_texts.system) and not renderer.static_json
    if plan is None or prompt.attached or own_system or prompt.examples_column is not None:
        return None
    return PackedRequests(pipeline.provider, plan, f"[{renderer.static_json}")
