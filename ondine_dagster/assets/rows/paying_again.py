"""Asks once more for answers that are paid and whose texts are gone, where a person wants that.

Only a run that says so: to purge texts, or to lose a key, must never buy a table again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ondine_dagster.engine.rows import PartitionFeed, Question, RowOutcome

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

# of a run that pays for lost answers again; any value but "false"
PAY_AGAIN_TAG = "ondine/pay_again"


def pays_again(tags: Mapping[str, str]) -> bool:
    """Return whether the tags of a run ask for that."""
    return tags.get(PAY_AGAIN_TAG, "false").lower() != "false"


def lost_asked_again(
    ledger: Ledger, ceiling: int, feeds: Iterable[PartitionFeed]
) -> Iterator[PartitionFeed]:
    """Yield `feeds` with the questions whose answers are lost asked in their stead.

    `ceiling` is the one that the questions are asked under. Another process may have paid since:
    then its answer serves.
    """

    def again(batch: Sequence[Question | RowOutcome]) -> Sequence[Question | RowOutcome]:
        keys = {row.answer_key for row in batch if isinstance(row, Question)}
        lost = {
            key: answer.attempt
            for key, answer in ledger.look_up(keys, ceiling).items()
            if answer.lost is not None
        }
        return [
            replace(row, instead_of=lost[row.answer_key])
            if isinstance(row, Question) and row.answer_key in lost
            else row
            for row in batch
        ]

    for feed in feeds:
        yield replace(feed, batches=map(again, feed.batches))
