"""`samples`: a row is asked several times, and its answers are voted on when they are read.

To the engine each sample is a question of its own, with a key of its own: it is paid once and kept,
and more samples later pay for those that are new. Here rows are taken apart and put together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question, RowOutcome
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.llm.answers import Values
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.provider import Usage
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.voting import vote
from ondine_dagster.spec.columns import AGREEMENT_COLUMNS

_Row = Question | RowOutcome
# what a row is shown as: whatever waits first, then an answer
_ORDER = (Outcome.HELD, Outcome.NOT_ATTEMPTED, Outcome.ANSWERED, Outcome.ERROR, Outcome.SKIPPED)


def samples_remark(pipeline: Pipeline) -> str | None:
    """Return why several answers will hardly differ; None where there is no reason."""
    llm, samples = pipeline.dataset.llm, pipeline.dataset.samples
    if samples > 1 and llm.temperature == 0:
        why = "llm.temperature 0"
    elif samples > 1 and llm.seed is not None:
        why = "llm.seed is declared"
    else:
        return None
    return (
        f"samples is {samples}, and {why}: the answers to a row will hardly differ, and each is "
        "paid. Change that, or ask once."
    )


def with_samples(pipeline: Pipeline, feeds: Iterable[PartitionFeed]) -> Iterator[PartitionFeed]:
    """Yield `feeds` with each row once per sample; one that is not asked comes as often."""
    count = pipeline.dataset.samples

    def apart(batch: Sequence[_Row]) -> Sequence[_Row]:
        return [sample for row in batch for sample in samples_of(pipeline, row, range(count))]

    for feed in feeds:
        yield feed if count == 1 else replace(feed, batches=map(apart, feed.batches))


def samples_of(pipeline: Pipeline, row: _Row, numbers: Iterable[int]) -> list[_Row]:
    """Return the questions for some samples of a row; a row that is not asked as often as it is."""
    if isinstance(row, RowOutcome):
        return [row for _ in numbers]
    digest = text_digest(row.messages)
    return [
        replace(row, answer_key=pipeline.sample_key(digest, number), sample=number)
        for number in numbers
    ]


def put_together(chunks: Generator[Chunk], count: Callable[[str], int]) -> Generator[Chunk]:
    """Yield rows from chunks of their samples.

    `count` tells of a partition how many samples its next row has.
    """
    waiting: dict[str, list[RowOutcome]] = {}
    wanted: dict[str, int] = {}
    with closing(chunks):
        for chunk in chunks:
            key, rows = chunk.partition, list[RowOutcome]()
            samples = waiting.setdefault(key, [])
            for outcome, answer_key in zip(chunk.outcomes, chunk.keys, strict=True):
                if not samples:
                    wanted[key] = count(key)
                samples.append(replace(outcome, answer_key=answer_key))
                if len(samples) == wanted[key]:
                    rows.append(together(samples))
                    samples.clear()
            keys = [one.samples[0].answer_key if one.samples else one.answer_key for one in rows]
            yield replace(chunk, outcomes=rows, keys=keys)


def together(samples: Sequence[RowOutcome]) -> RowOutcome:
    """Return the end of a row from those of its samples.

    It waits while one of them does, and is answered where one of them is.
    """
    first = min(samples, key=lambda one: _ORDER.index(one.outcome))
    if all(one.answer_key is None for one in samples):
        return first  # nothing was asked
    latencies = [one.latency_ms for one in samples if one.latency_ms is not None]
    sources = [one.cost_source for one in samples if one.cost_source]
    answered = next((one for one in samples if one.text is not None), first)
    return replace(
        first,
        text=answered.text,
        finish_reason=answered.finish_reason,
        model_served=answered.model_served,
        usage=_usage([one.usage for one in samples]),
        cost=sum(one.cost for one in samples),
        unknown_cost=sum(one.unknown_cost for one in samples),
        cost_source=next((one for one in sources if one != "reused"), next(iter(sources), None)),
        attempts=sum(one.attempts for one in samples),
        requests=sum(one.requests for one in samples),
        latency_ms=max(latencies, default=None),
        flags=tuple(dict.fromkeys(flag for one in samples for flag in one.flags)),
        kept=all(one.kept for one in samples),
        answer_key=None,
        samples=tuple(samples),
    )


def _usage(parts: Sequence[Usage]) -> Usage:
    def total(values: Iterable[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Usage(
        prompt_tokens=total(one.prompt_tokens for one in parts),
        completion_tokens=total(one.completion_tokens for one in parts),
        cached_tokens=total(one.cached_tokens for one in parts),
        reasoning_tokens=total(one.reasoning_tokens for one in parts),
    )


def read_row(
    pipeline: Pipeline, outcome: RowOutcome, flags: list[str] | None = None
) -> Values | Rejection:
    """Return what an answered row says, by a vote where it has several samples.

    What had to be repaired is added to `flags`.
    """
    if not outcome.samples:
        assert outcome.text is not None
        return pipeline.reader.read(outcome.text, flags)
    found = vote([read_sample(pipeline, one, flags) for one in outcome.samples], pipeline.voted)
    if isinstance(found, Rejection):
        return found
    agreement, votes = AGREEMENT_COLUMNS
    return {**found.values, agreement: found.agreement, votes: found.votes}


def read_sample(
    pipeline: Pipeline, sample: RowOutcome, flags: list[str] | None = None
) -> Values | Rejection:
    """Return what one sample says."""
    if sample.outcome is Outcome.ANSWERED and sample.text is not None:
        return pipeline.reader.read(sample.text, flags)
    return Rejection(
        sample.code or ErrorCode.STOPPED,
        sample.message or "no answer",
        sample.error_class or ErrorClass.ROW_RETRYABLE,
    )
