"""What rows will need before anybody is asked: which questions are paid, and what the rest costs.

Owns the counting that `plan`, the metadata of `prompts` and the estimate of a step share.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from ondine_dagster.assets.rows.packs import estimator_of
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.ledger.coverage import Cover, Covered, covered, reading
from ondine_dagster.ledger.estimates import Estimate, Estimator
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.ledger.learnt import learnt
from ondine_dagster.ledger.pack_estimates import Size
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Connection

BATCH_ROWS = 5000
# notes of a `prompts` file: the estimate for its rows, and the run in which it was made
ESTIMATE_NOTE, RUN_NOTE = "ondine.estimate", "ondine.run"
# Beyond it, a question that comes again may be counted twice: memory has to stay bounded.
_MOST_REMEMBERED = 1_000_000


class Need(StrEnum):
    """What a row needs, or has."""

    NEW = "new"  # never asked
    STALE = "stale"  # asked before, but another question
    CUT = "cut"  # its answer was cut off, and the ceiling is higher now: asked again
    PAID = "paid"  # answered, or failed for good
    ASKING = "asking"  # another run is asking right now
    HELD = "held"  # too many requests of unknown outcome
    NOT_RENDERED = "not rendered"  # there is nothing to ask
    SKIPPED = "skipped"  # `when` is not true for it


_NEEDS = {
    Cover.PAID: Need.PAID,
    Cover.CUT: Need.CUT,
    Cover.ASKING: Need.ASKING,
    Cover.HELD: Need.HELD,
}
_TO_ASK = frozenset({Need.NEW, Need.STALE, Need.CUT})


class RowNeed(NamedTuple):
    """A row's need; `reason` says why it is stale, `base_url` who answered it.

    `key` and `size` are those of its question, where it has to be asked. `more` are the other
    questions of a row that has to be asked several.
    """

    need: Need
    key: bytes = b""
    size: Size = (0, 0)
    reason: str | None = None
    base_url: str | None = None
    more: tuple[RowNeed, ...] = ()


class Questions:
    """Questions to ask: each is asked once, however many rows have it."""

    def __init__(self, seen: set[bytes] | None = None) -> None:
        """`seen` are questions that were counted elsewhere; those counted here join them."""
        self._seen: set[bytes] = set() if seen is None else seen
        self._first: Counter[Size] = Counter()
        self._cut: Counter[Size] = Counter()
        self._partitions = [0]  # new questions of each: those of one may go together
        self.rows = 0
        self.repeated = 0

    def add(self, row: RowNeed) -> None:
        """Count a row, where it has to be asked."""
        if row.need not in _TO_ASK:
            return
        self.rows += 1
        to_ask = [one for one in (row, *row.more) if one.key not in self._seen]
        self.repeated += not to_ask
        for one in to_ask:
            if len(self._seen) < _MOST_REMEMBERED:
                self._seen.add(one.key)
            if one.need is Need.CUT:
                self._cut[one.size] += 1
            else:
                self._first[one.size] += 1
                self._partitions[-1] += 1

    def next_partition(self) -> None:
        """The rows that are added from now on are of another partition."""
        if self._partitions[-1]:
            self._partitions.append(0)

    def estimate(self, estimator: Estimator) -> Estimate:
        """Return what these questions will probably use."""
        new = estimator.together(self._first, self._partitions)
        return new + estimator.cut(self._cut)


class Outlook:
    """What the ledger says of a dataset's questions. Reads only."""

    def __init__(self, pipeline: Pipeline, connection: Connection | None) -> None:
        """Without a connection there is no ledger yet: nothing is paid, nothing was learnt."""
        provider, limits = pipeline.provider, pipeline.dataset.limits
        known = learnt(connection, provider, pipeline.name) if connection is not None else None
        self.estimator = estimator_of(pipeline, known)
        self.seen: set[bytes] = set()
        self._pipeline = pipeline
        self._connection = connection
        pipeline.keys.look(connection)
        self._ceiling = pipeline.highest_ceiling
        self._max_unknown = 0 if limits.on_unknown == "hold" else limits.max_unknown

    def rows(
        self,
        keys: Sequence[bytes | None],
        messages: Sequence[str | None],
        codes: Sequence[str | None],
        reasons: Iterable[str | None],
    ) -> Iterator[RowNeed]:
        """Yield what each row needs.

        `codes` are those of rows that could not be rendered; `reasons` say which rows were asked
        something else.
        """
        samples = [self._samples(*one) for one in zip(keys, messages, strict=True)]
        found = covered(
            self._connection,
            {key for row in samples for key in row},
            ceiling=self._ceiling,
            max_unknown=self._max_unknown,
        )
        for own, text, code, reason in zip(samples, messages, codes, reasons, strict=True):
            if text is None:
                yield RowNeed(Need.NOT_RENDERED if code else Need.SKIPPED)
            else:
                needs = [self._row(key, text, reason, found.get(key)) for key in own]
                first, *more = sorted(needs, key=lambda one: one.need not in _TO_ASK)
                yield first._replace(more=tuple(one for one in more if one.need in _TO_ASK))

    def _samples(self, key: bytes | None, text: str | None) -> tuple[bytes, ...]:
        """Return the keys of all questions of a row; `key` is that of the first."""
        if key is None or text is None:
            return ()
        count = self._pipeline.dataset.samples
        if count == 1:
            return (key,)
        digest = text_digest(text)
        return (key, *(self._pipeline.sample_key(digest, one) for one in range(1, count)))

    def _row(self, key: bytes, text: str, reason: str | None, found: Covered | None) -> RowNeed:
        if found is None:
            need = Need.STALE if reason else Need.NEW
            return RowNeed(need, key, self.estimator.size(text), reason)
        need = _NEEDS[found.cover]
        size = self.estimator.size(text) if need is Need.CUT else (0, 0)
        return RowNeed(need, key, size, None, found.base_url)

    def estimate_prompts(self, lake: Lake, dataset: str, partition: str) -> Estimate:
        """Return the estimate for the rows of a `prompts` file as the ledger is now."""
        questions = Questions(self.seen)
        columns = ("answer_key", "messages", "error_code")
        for batch in lake.iter_batches(dataset, "prompts", partition, BATCH_ROWS, columns):
            keys, messages, codes = (batch.column(name).to_pylist() for name in columns)
            for row in self.rows(keys, messages, codes, [None] * batch.num_rows):
                questions.add(row)
        return questions.estimate(self.estimator)


def estimate_notes(estimate: Estimate, run_id: str) -> dict[str, str]:
    """Return what a `prompts` file notes of the estimate for its rows."""
    return {ESTIMATE_NOTE: json.dumps(asdict(estimate)), RUN_NOTE: run_id}


def estimate_step(
    pipeline: Pipeline, lake: Lake, partitions: Sequence[str], ledger_path: Path, run_id: str
) -> Estimate:
    """Return what asking these partitions will probably use.

    Prompts of the same run have been looked up a moment ago, and their files say it. Only where
    they are older the ledger is asked again: rows may have been paid since.
    """
    notes = {key: lake.metadata(pipeline.name, "prompts", key) for key in partitions}
    fresh = [one[ESTIMATE_NOTE] for one in notes.values() if one.get(RUN_NOTE) == run_id]
    total = sum((Estimate(**json.loads(one)) for one in fresh), Estimate())
    older = [key for key, one in notes.items() if one.get(RUN_NOTE) != run_id]
    if older:
        with reading(ledger_path) as connection:
            outlook = Outlook(pipeline, connection)
            for key in older:
                total += outlook.estimate_prompts(lake, pipeline.name, key)
    return total
