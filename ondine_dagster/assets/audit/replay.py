"""`replay`: makes prompts, responses and results again from what is recorded, and asks nobody.

Owns what a recording is: the answers of the ledger, and for rows that ended without one the row in
`responses`. No transport is made. A row without a recording is a miss: its partition stays as it
is, and the run fails and names the row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING

from ondine_dagster.assets.rows.fallback import with_fallback
from ondine_dagster.assets.rows.merge import kept, rows_of
from ondine_dagster.assets.rows.outcomes import feeds
from ondine_dagster.assets.rows.outlook import Need, RowNeed
from ondine_dagster.assets.rows.samples import put_together, with_samples
from ondine_dagster.assets.shared.partition_counts import COSTS, RESPONSES, TRIO
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question, RowOutcome, stored
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.privacy.scrubbing import Scrub
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

# of a run: what it does with questions that are not answered yet
MODE_TAG = "ondine/mode"
REPLAYED = "ondine.replayed"  # note of rows that cost nothing this time: what they did cost stands
_MISS = "no_recording"
_SHOWN = 5
# what a file says of its rows' earlier run
_KEPT_NOTES = (*COSTS, "ondine.ceiling")
_RECORDED = frozenset({Need.PAID, Need.SKIPPED, Need.NOT_RENDERED})


class NotRecorded(OndineError):
    """Rows of one partition have no recording."""


class Mode(StrEnum):
    """What a run does."""

    LIVE = "live"
    REPLAY = "replay"
    VERIFY = "verify"


def mode_of(tags: Mapping[str, str]) -> Mode:
    """Return the mode that the tags of a run ask for; raises OndineError for an unknown one."""
    text = tags.get(MODE_TAG, Mode.LIVE)
    try:
        return Mode(text)
    except ValueError:
        raise OndineError(
            f"The tag {MODE_TAG} is {text!r}; it must be one of: {', '.join(Mode)}."
        ) from None


def replayed_assets(pipeline: Pipeline) -> tuple[str, ...]:
    """Return what is made again of each partition.

    Rows and prompts stand where prompts hold files of other servers: nothing is fetched again.
    """
    if any(one.fetch for one in pipeline.dataset.prompt.attached):
        return TRIO
    return ("raw_rows", "prompts", *TRIO)


class Missing:
    """Collects the rows of a partition that have no recording, while its prompts are made."""

    def __init__(self, pipeline: Pipeline, lake: Lake, partition: str) -> None:
        self._pipeline = pipeline
        self._where = f"{pipeline.name} {partition}"
        self._recorded = _recorded_keys(pipeline, lake, partition)
        self._rows: list[tuple[str, str | None]] = []

    def look(
        self,
        row_keys: Sequence[str],
        messages: Sequence[str | None],
        codes: Sequence[str | None],
        needs: Sequence[RowNeed],
    ) -> None:
        """Take in what rows need.

        `messages` are those that they are asked, `codes` say why there are none.
        """
        for row_key, asked, code, one in zip(row_keys, messages, codes, needs, strict=True):
            if code is not None and self._recorded.get(row_key) is not None:
                self._rows.append((row_key, f"it has no prompt any more: {code}"))
            elif one.need not in _RECORDED and not self._is_recorded(row_key, asked):
                self._rows.append((row_key, one.reason or self._other_file(row_key)))

    def _other_file(self, row_key: str) -> str | None:
        """Return why a row of the same declaration is asked something else; None: it is not."""
        if row_key not in self._recorded or not self._pipeline.dataset.prompt.attached:
            return None
        return "its image or document is another one"

    def _is_recorded(self, row_key: str, messages: str | None) -> bool:
        recorded = self._recorded.get(row_key)
        if recorded is None or messages is None:
            return False
        pipeline, digest = self._pipeline, text_digest(messages)
        fallback = pipeline.fallback_llm is not None and pipeline.fallback_key(digest)
        return recorded in (pipeline.sample_key(digest, 0), fallback)

    def refuse(self) -> None:
        """Raise NotRecorded where there are such rows: it names them, and what differs."""
        if self._rows:
            raise NotRecorded(_sentence(self._where, self._rows, self._pipeline.scrub))


def replayed(
    pipeline: Pipeline, ledger: Ledger, lake: Lake, partitions: Sequence[str]
) -> Generator[Chunk]:
    """Yield the rows of the partitions as they are recorded.

    Raises OndineError at the end where rows have no recording; it names them. Nothing of their
    partitions is yielded.
    """
    missed: list[str] = []
    for partition in partitions:
        chunks = _chunks(pipeline, ledger, lake, partition)
        ends = chain.from_iterable(chunk.outcomes for chunk in chunks)
        named = zip(_row_keys(pipeline, lake, partition), ends, strict=True)
        rows = [(key, None) for key, outcome in named if _MISS in outcome.flags]
        if rows:
            where = f"{pipeline.name} {partition}"
            missed.append(_sentence(where, rows, pipeline.scrub))
        else:
            yield from _chunks(pipeline, ledger, lake, partition)
    if missed:
        raise OndineError("\n".join(missed))


def _chunks(pipeline: Pipeline, ledger: Ledger, lake: Lake, partition: str) -> Generator[Chunk]:
    count = pipeline.dataset.samples
    apart = with_samples(pipeline, feeds(pipeline, lake, [partition]))
    chunks = _answered(pipeline, ledger, with_fallback(pipeline, ledger, apart))
    if count > 1:
        chunks = put_together(chunks, lambda _: count)
    return _as_recorded(pipeline, lake, partition, chunks)


def _answered(
    pipeline: Pipeline, ledger: Ledger, asked: Iterator[PartitionFeed]
) -> Generator[Chunk]:
    """Yield rows with the answers of the ledger."""
    for feed in asked:
        for batch in feed.batches:
            keys = {row.answer_key for row in batch if isinstance(row, Question)}
            found = ledger.look_up(keys, pipeline.highest_ceiling)
            outcomes = [
                row
                if isinstance(row, RowOutcome)
                else stored(found[row.answer_key])
                if row.answer_key in found
                else RowOutcome(Outcome.NOT_ATTEMPTED, flags=(_MISS,))
                for row in batch
            ]
            answer_keys = [row.answer_key for row in batch]
            yield Chunk(feed.key, outcomes, answer_keys, last=False, notes=feed.notes)
        yield Chunk(feed.key, [], [], last=True, notes=feed.notes)


def _as_recorded(
    pipeline: Pipeline, lake: Lake, partition: str, chunks: Generator[Chunk]
) -> Generator[Chunk]:
    """Yield rows as the file in place has them, where that is of the same rows and answers.

    It knows what they did cost, and how rows ended that nobody has answered.
    """
    name = pipeline.name
    order = lake.metadata(name, "prompts", partition)["ondine.order"]
    if not lake.exists(name, RESPONSES, partition):
        yield from chunks
        return
    with closing(lake.open(name, RESPONSES, partition)) as file, closing(chunks):
        if file.metadata["ondine.order"] != order:
            yield from chunks
            return
        notes = {one: file.metadata[one] for one in _KEPT_NOTES if one in file.metadata}
        before = map(kept, rows_of(file))
        for chunk in chunks:
            rows = zip(chunk.outcomes, chunk.keys, strict=True)
            outcomes = [
                old if old_key == key and _same(old, new) else new
                for (new, key), (old, old_key) in zip(rows, before, strict=False)
            ]
            told = {**chunk.notes, **notes, REPLAYED: "true"}
            yield replace(chunk, outcomes=outcomes, notes=told)


def _same(old: RowOutcome, new: RowOutcome) -> bool:
    """Return whether a row is the one that is in the file; a miss may be what is there."""
    if len(old.samples) != len(new.samples):
        return False
    pairs = zip(old.samples or (old,), new.samples or (new,), strict=True)
    return all(
        (not old.samples or one.answer_key == other.answer_key)
        and (_MISS in other.flags or (one.outcome, one.text) == (other.outcome, other.text))
        for one, other in pairs
    )


def _recorded_keys(pipeline: Pipeline, lake: Lake, partition: str) -> dict[str, bytes | None]:
    """Return the questions of rows as `responses` has them, where it is of the present question.

    None: the row was not asked.
    """
    name = pipeline.name
    if not lake.exists(name, RESPONSES, partition):
        return {}
    with closing(lake.open(name, RESPONSES, partition)) as file:
        if file.metadata["ondine.question_version"] != pipeline.question_version:
            return {}
        rows = rows_of(file, ["_row_key", "answer_key"])
        return {row["_row_key"]: row["answer_key"] for row in rows}


def _row_keys(pipeline: Pipeline, lake: Lake, partition: str) -> Iterator[str]:
    with closing(lake.open(pipeline.name, "prompts", partition)) as file:
        for row in rows_of(file, ["_row_key"]):
            yield row["_row_key"]


def _sentence(where: str, rows: Sequence[tuple[str, str | None]], scrub: Scrub) -> str:
    named = "; ".join(
        f"row {scrub(key)} ({reason or 'no answer is in the ledger'})"
        for key, reason in rows[:_SHOWN]
    )
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return (
        f"{where}: {plural(len(rows), 'row')} cannot be replayed: {named}{more}. Put the "
        "declaration or the rows back as they were, or run it without replay: that asks for them, "
        "and costs money. What was answered before stays as it is."
    )
