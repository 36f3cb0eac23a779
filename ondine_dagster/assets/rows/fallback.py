"""What the fallback has answered stays in use: no run loses it, and none pays for it again.

A row whose answer of the dataset's own model is rejected has the fallback's, where a retry brought
one. Only a retry asks the fallback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import PartitionFeed, Question, RowOutcome, stored
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.ledger.records import Answer
from ondine_dagster.llm.provider import Verdict

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

_Row = Question | RowOutcome


def with_fallback(
    pipeline: Pipeline, ledger: Ledger, feeds: Iterable[PartitionFeed]
) -> Iterator[PartitionFeed]:
    """Yield `feeds` with the stored answers of the fallback in the place of rejected ones."""
    for feed in feeds:
        if pipeline.fallback is None:
            yield feed
        else:
            batches = (_answered(pipeline, ledger, batch) for batch in feed.batches)
            yield replace(feed, batches=batches)


def _answered(pipeline: Pipeline, ledger: Ledger, batch: Sequence[_Row]) -> Sequence[_Row]:
    fallback = pipeline.fallback
    assert fallback is not None
    keys = {
        row.answer_key: pipeline.fallback_key(text_digest(row.messages), row.sample)
        for row in batch
        if isinstance(row, Question)
    }
    seconds = ledger.look_up(keys.values(), fallback.raised_ceiling or fallback.ceiling)
    if not seconds:
        return batch
    known = [first for first, second in keys.items() if second in seconds]
    firsts = ledger.look_up(known, pipeline.highest_ceiling)

    def answered(row: _Row) -> _Row:
        if not isinstance(row, Question) or keys[row.answer_key] not in seconds:
            return row
        first, second = firsts.get(row.answer_key), seconds[keys[row.answer_key]]
        # where nobody has answered, a rejected answer of the fallback is no reason not to ask
        unasked = first is None and not _accepted(pipeline, second)
        if second.lost or unasked or _accepted(pipeline, first):
            return row
        return replace(stored(second), answer_key=second.answer_key, model_requested=fallback.model)

    return [answered(row) for row in batch]


def _accepted(pipeline: Pipeline, answer: Answer | None) -> bool:
    if answer is None or answer.verdict is not Verdict.OK or answer.text is None:
        return False
    return isinstance(pipeline.judge(answer.text), dict)
