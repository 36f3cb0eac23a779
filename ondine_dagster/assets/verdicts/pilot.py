"""The pilot of a step: what the engine judges its first rows by, and how the verdict is shown."""

from __future__ import annotations

import json

import dagster as dg

from ondine_dagster.assets.shared import markdown
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.pilot import Example, PilotPlan, PilotVerdict
from ondine_dagster.engine.rows import Outcome, RowOutcome
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.privacy.scrubbing import beginning

_LONGEST_EXCERPT = 200
# with fewer questions the others are hardly more than the pilot
_WORTH_IT = 2


def pilot_plan(pipeline: Pipeline, estimate: Estimate) -> PilotPlan | None:
    """Return what is judged first, None where so few rows are to be asked that it saves nothing."""
    rows, checks = pipeline.dataset.limits.pilot_rows, pipeline.dataset.checks.pilot
    if not rows or (estimate.rows or estimate.requests) < _WORTH_IT * rows:
        return None

    def rejection(outcome: RowOutcome) -> str | None:
        if outcome.outcome is not Outcome.ANSWERED or outcome.text is None:
            return outcome.message or "no answer"
        answer = pipeline.judge(outcome.text)
        return answer.message if isinstance(answer, Rejection) else None

    return PilotPlan(
        rows,
        rejection,
        max_rejected=checks.max_rejected,
        max_cost_ratio=checks.max_cost_ratio,
        expected_cost=estimate.each,
    )


def pilot_metadata(pipeline: Pipeline, verdict: PilotVerdict | None) -> Metadata:
    """Return what a pilot came to; nothing where there was none."""
    if verdict is None:
        return {}
    return {
        "pilot": verdict.numbers,
        "pilot_rows": dg.MetadataValue.md(examples_table(pipeline, verdict)),
    }


def what_to_do(pipeline: Pipeline, verdict: PilotVerdict | None) -> str:
    """Return what a person does about a pilot that failed, and what was seen of it."""
    if verdict is None or verdict.breach is None:
        return ""
    name, scrub = pipeline.name, pipeline.scrub
    first = (
        f"Mend the prompt or the output fields, and ask anew: `ondine-dagster run {name} --all`. "
        f"To go on as it is: limits.pilot_rows: 0, and `ondine-dagster run {name}`."
    )
    rows = [f"{n}. {scrub(_as_text(one))}" for n, one in enumerate(verdict.examples, start=1)]
    return "\n".join([first, *rows])


def examples_table(pipeline: Pipeline, verdict: PilotVerdict) -> str:
    """Return the examples as a markdown table."""
    rows = [
        [
            cell and pipeline.scrub(cell)
            for cell in (one.row_key, _prompt(one), one.answer, one.reason)
        ]
        for one in verdict.examples
    ]
    return markdown.table(("row", "prompt", "answer", "why"), rows)


def _as_text(one: Example) -> str:
    answer = "no text" if one.answer is None else f'"{_excerpt(one.answer)}"'
    return (
        f'row {_excerpt(one.row_key)}: {_excerpt(one.reason)}; asked "{_prompt(one)}"; got {answer}'
    )


def _prompt(one: Example) -> str:
    """Return the last message, which holds the row."""
    return _excerpt(str(json.loads(one.messages)[-1]["content"]))


def _excerpt(text: str) -> str:
    return beginning(" ".join(text.split()), _LONGEST_EXCERPT, "…")
