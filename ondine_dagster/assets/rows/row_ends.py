"""How rows have ended, for who is told of rows: what an answer says decides, not that it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ondine_dagster.engine.events import RowEnded
from ondine_dagster.engine.rows import Outcome, RowOutcome
from ondine_dagster.llm.prices import usd
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.observe.log_lines import OK, SKIPPED

# a row, and the values of its answer, or why they are of no use; None where there is no answer
ReadRow = tuple[RowOutcome, Mapping[str, Any] | Rejection | None]
_REJECTED = "rejected"


def row_ends(
    run_id: str,
    dataset: str,
    partition: str,
    keys: Sequence[str],
    read: Sequence[ReadRow],
    *,
    all_rows: bool,
) -> Iterator[RowEnded]:
    """Yield the ends of rows that this run has dealt with; without `all_rows`, of rejected ones."""
    for key, (row, values) in zip(keys, read, strict=True):
        good = isinstance(values, dict)
        if row.kept or (good and not all_rows):
            continue
        error_class, code, message = (None, None, None) if good else problem(row, values)
        yield RowEnded(
            run_id=run_id,
            dataset=dataset,
            partition=partition,
            row_key=key,
            outcome=_outcome(row)
            if not good
            else SKIPPED
            if row.outcome is Outcome.SKIPPED
            else OK,
            attempt=row.attempts,
            cost_usd=usd(row.cost),
            error_class=error_class,
            code=code,
            message=message,
        )


def problem(row: RowOutcome, values: object) -> tuple[str, str, str]:
    """Return class, code and message of what is wrong with a row that has no result."""
    if isinstance(values, Rejection):
        return values.error_class, values.code, values.message
    return row.error_class or "", row.code or "", row.message or ""


def _outcome(row: RowOutcome) -> str:
    waits = row.outcome in (Outcome.NOT_ATTEMPTED, Outcome.HELD)
    return row.outcome if waits else _REJECTED
