"""Whether a declaration fits the columns of its source."""

from __future__ import annotations

from collections.abc import Sequence

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import its_columns
from ondine_dagster.storage.snapshot import check_columns


def check_source_columns(pipeline: Pipeline, columns: Sequence[str]) -> None:
    """Refuse a declaration that does not fit the source's columns.

    Raises OndineError for colliding columns and for names in the prompt that are no columns.
    """
    check_columns(pipeline.dataset, columns)
    named = {"the prompt": pipeline.renderer.columns}
    if pipeline.condition is not None:
        named["`when`"] = pipeline.condition.columns
    for what, names in named.items():
        if unknown := sorted(names - set(columns)):
            raise OndineError(
                f"Dataset {pipeline.name}: {what} names {', '.join(unknown)}, which the source "
                f"does not have. {its_columns(columns, unknown)}{_braces(pipeline)}"
            )
    _check_cleaned(pipeline, columns)


def _braces(pipeline: Pipeline) -> str:
    if pipeline.prompt_texts.style == "jinja":
        return ""
    return " In plain text {name} is a column; braces that are text are doubled: {{ and }}."


def _check_cleaned(pipeline: Pipeline, columns: Sequence[str]) -> None:
    renderer = pipeline.renderer
    named = columns if renderer.needs_whole_row else renderer.columns
    idle = sorted(pipeline.dataset.prompt.clean.keys() - set(named))
    if idle:
        raise OndineError(
            f"Dataset {pipeline.name}: prompt.clean has {', '.join(idle)}, which is not in the "
            f"prompt. Its columns: {', '.join(sorted(named))}. Correct or remove it."
        )
