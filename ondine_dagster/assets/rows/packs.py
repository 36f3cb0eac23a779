"""How the rows of a dataset go together in requests: for the engine, and for estimates."""

from __future__ import annotations

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.ledger.estimates import Estimator, answer_tokens
from ondine_dagster.ledger.learnt import Learnt
from ondine_dagster.ledger.pack_estimates import PackedRequests
from ondine_dagster.llm.answer_size import likely_tokens
from ondine_dagster.llm.output_limits import most_completion_tokens
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.spec import Llm


def pack_plan(pipeline: Pipeline, known: Learnt | None, *, retry: bool = False) -> PackPlan | None:
    """Return how the rows of a dataset go together; None where each goes alone.

    `known` is what was learnt of earlier answers: how long they are. `retry`: rejected rows are
    asked again, perhaps another model.
    """
    found = pipeline.retry_packing if retry else pipeline.packing
    if found is None:
        return None
    packing, provider = found
    llm = _llm(pipeline, retry=retry)
    rows = pipeline.dataset.batching.rows_per_request
    by_form = likely_tokens(llm, pipeline.dataset.output)
    return PackPlan(
        packing,
        provider,
        rows=None if rows == "auto" else rows,
        completion_tokens=answer_tokens(
            (known and known.together) or known, by_form, provider.ceiling
        ),
        most_completion_tokens=most_completion_tokens(llm),
    )


def estimator_of(pipeline: Pipeline, known: Learnt | None, *, retry: bool = False) -> Estimator:
    """Return what tells of requests for a dataset's rows what they will probably use."""
    output = pipeline.dataset.output
    return Estimator(
        (pipeline.fallback if retry else None) or pipeline.provider,
        known,
        _packed_requests(pipeline, known, retry=retry),
        reask=bool(output.reask),
        by_form=likely_tokens(_llm(pipeline, retry=retry), output),
    )


def _packed_requests(
    pipeline: Pipeline, known: Learnt | None, *, retry: bool
) -> PackedRequests | None:
    """Return what requests for several rows are made of; None where each row goes alone.

    So do rows with attachments, and rows of which each has instructions or examples of its own.
    """
    plan = pack_plan(pipeline, known, retry=retry)
    prompt, renderer = pipeline.dataset.prompt, pipeline.renderer
    own_system = bool(pipeline.prompt_texts.system) and not renderer.static_json
    if plan is None or prompt.attached or own_system or prompt.examples_column is not None:
        return None
    provider = (pipeline.fallback if retry else None) or pipeline.provider
    return PackedRequests(provider, plan, f"[{renderer.static_json}")


def _llm(pipeline: Pipeline, *, retry: bool) -> Llm:
    return (pipeline.fallback_llm if retry else None) or pipeline.dataset.llm
