"""Names of columns: those that the product adds, and what a declared one may look like."""

from __future__ import annotations

from ondine_dagster.spec.problems import shown

SNAPSHOT_COLUMNS = ("_row_key", "_partition", "_position")
LINEAGE_COLUMNS = (
    "_row_key",
    "_position",
    "_outcome",
    "_model_served",
    "_prompt_tokens",
    "_completion_tokens",
    "_cost_usd",
    "_unknown_usd",
    "_cost_source",
    "_attempts",
    "_latency_ms",
    "_flags",
    "_answer_key",
)
ERROR_COLUMNS = ("_error_class", "_error_code", "_error_message", "_raw_text", "_events")
# of datasets with `samples`: how far they agree, and how they voted
AGREEMENT_COLUMNS = ("_agreement", "_votes")
# only in exports: which version of prompt, model and schema a row was asked under, in which trace
QUESTION_VERSION_COLUMN, TRACE_COLUMN = "_question_version", "_trace_id"
RESERVED_COLUMNS = frozenset(
    (
        *(*SNAPSHOT_COLUMNS, *LINEAGE_COLUMNS, *ERROR_COLUMNS),
        *(QUESTION_VERSION_COLUMN, TRACE_COLUMN),
    )
)


def same_column(name: str) -> str:
    """Return what two names have in common when a table would take them for one column.

    SQL does not tell `Score` from `score`, and DuckDB would rename one of them silently.
    """
    return name.casefold()


_RESERVED = {same_column(name) for name in (*RESERVED_COLUMNS, *AGREEMENT_COLUMNS)}


def output_column(name: str) -> str:
    """Return `name` if it may be the name of an output column.

    Raises:
        ValueError: it is reserved, or no readable name.
    """
    if same_column(name) in _RESERVED:
        raise ValueError(f"is {shown(name)}, a column that ondine_dagster adds; choose another")
    if name != name.strip() or not name.isprintable():
        raise ValueError(f"is {shown(name)}; it must have no spaces around it, and no line breaks")
    return name
