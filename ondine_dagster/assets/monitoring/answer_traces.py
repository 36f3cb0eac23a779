"""In which trace an answer was paid for: what an export says of each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.ledger.statements import KeyedSelect
from ondine_dagster.ledger.tracing import trace_id

_a, _t = schema.answers.c, schema.attempts.c
_PAID = KeyedSelect(
    lambda keys: (
        sa.select(_a.answer_key, _t.run_id, _t.run_scope, _t.dataset, _t.partition)
        .join_from(schema.answers, schema.attempts, _a.attempt == _t.id)
        .where(_a.answer_key.in_(keys), _a.current == sa.literal_column("1"))
    )
)


class AnswerTraces:
    """Knows the trace of each answer in a ledger."""

    def __init__(self, ledger: Path) -> None:
        """Read the ledger at this path; where there is none, no answer has a trace."""
        self._engine = reader_engine(ledger) if ledger.exists() else None

    def __call__(self, answer_keys: Sequence[str | None]) -> list[str | None]:
        """Return the id of the trace, in hex, of each answer; keys are in hex as well."""
        if self._engine is None:
            return [None] * len(answer_keys)
        keys = {bytes.fromhex(key) for key in answer_keys if key}
        with self._engine.connect() as connection:
            found = {
                bytes(key).hex(): trace_id(run or scope, dataset, partition).hex()
                for key, run, scope, dataset, partition in _PAID.rows(connection, keys)
            }
        return [found.get(key) if key else None for key in answer_keys]
