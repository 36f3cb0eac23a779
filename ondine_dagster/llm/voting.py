"""What several answers to one question say together: a majority for each column. Pure.

Columns that hold a choice are voted on. The others, free text and measured numbers, are taken from
one answer, that which agrees most with the winners: pieces of several would fit no row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ondine_dagster.llm.answers import Values
from ondine_dagster.llm.field_checks import Value
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.structured import compact_json


@dataclass(frozen=True, slots=True)
class Vote:
    """The values that won.

    `agreement` is the least share of all answers, those of no use too, that a winner has; None
    where no column is voted on. `votes` is JSON: for each such column its values and their counts.
    """

    values: Values
    agreement: float | None
    votes: str | None


def vote(answers: Sequence[Values | Rejection], voted: Collection[str]) -> Vote | Rejection:
    """Return the majority of `answers` for the columns `voted`.

    A tie is decided by who came first. Where not more than half of the answers are of use, the row
    is rejected for the reason of the first one that is not.
    """
    good = [one for one in answers if not isinstance(one, Rejection)]
    if 2 * len(good) <= len(answers):
        return next(one for one in answers if isinstance(one, Rejection))
    counts = {name: Counter(_ballot(one[name]) for one in good) for name in good[0]}
    counts = {name: counts[name] for name in counts if name in voted}
    winners = {name: found.most_common(1)[0] for name, found in counts.items()}

    def agrees(one: Values) -> int:
        return sum(_ballot(one[name]) == winner for name, (winner, _) in winners.items())

    best = max(good, key=agrees)  # the first of equals
    values = dict(best)
    for name, (winner, _) in winners.items():
        values[name] = next(one[name] for one in good if _ballot(one[name]) == winner)
    if not winners:
        return Vote(values, None, None)
    return Vote(
        values,
        min(count for _, count in winners.values()) / len(answers),
        compact_json({name: found.most_common() for name, found in counts.items()}),
    )


def _ballot(value: Value) -> str | int | float | bool | None:
    """Return what a value counts as: white space round a text makes no difference."""
    if isinstance(value, str):
        return value.strip()
    return value if isinstance(value, bool | int | float) else None
