"""Where the ends of rows come from: the engine that asks, or the file of those asked before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question, RowOutcome
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.provider import Usage
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

FEED_ROWS = 1000


def feeds(lake: Lake, dataset: str, partitions: Sequence[str]) -> Iterator[PartitionFeed]:
    """Yield the prompts of each partition, read when the engine wants them."""
    for partition in partitions:
        yield PartitionFeed(partition, _questions(lake, dataset, partition))


def _questions(
    lake: Lake, dataset: str, partition: str
) -> Iterator[Sequence[Question | RowOutcome]]:
    names = ["_row_key", "answer_key", "messages", "error_class", "error_code", "error_message"]
    for batch in lake.iter_batches(dataset, "prompts", partition, FEED_ROWS, names):
        columns = [batch.column(name).to_pylist() for name in names]
        yield [_question(*cells) for cells in zip(*columns, strict=True)]


def _question(
    row_key: str,
    answer_key: bytes | None,
    messages: str | None,
    error_class: str | None,
    code: str | None,
    message: str | None,
) -> Question | RowOutcome:
    if answer_key is not None and messages is not None:
        return Question(row_key, answer_key, messages)
    return RowOutcome(
        outcome=Outcome.ERROR,
        error_class=ErrorClass(error_class) if error_class else None,
        code=ErrorCode(code) if code else None,
        message=message,
    )


def stored_outcomes(lake: Lake, dataset: str, partitions: Sequence[str]) -> Iterator[Chunk]:
    """Yield what `responses` holds: parsing again asks nobody."""
    for partition in partitions:
        batches = iter(lake.iter_batches(dataset, "responses", partition, FEED_ROWS))
        waiting = next(batches, None)
        if waiting is None:
            yield Chunk(partition, [], last=True)
        while waiting is not None:
            following = next(batches, None)
            yield Chunk(partition, _outcomes(waiting), last=following is None)
            waiting = following


def _outcomes(batch: pa.RecordBatch) -> list[RowOutcome]:
    return [_outcome(row) for row in batch.to_pylist()]


def _outcome(row: dict[str, Any]) -> RowOutcome:
    from ondine_dagster.assets.tables import picodollars

    return RowOutcome(
        outcome=Outcome(row["outcome"]),
        text=row["text"],
        finish_reason=row["finish_reason"],
        model_served=row["model_served"],
        usage=Usage(
            row["prompt_tokens"],
            row["completion_tokens"],
            row["cached_tokens"],
            row["reasoning_tokens"],
        ),
        cost=picodollars(row["cost_usd"]),
        unknown_cost=picodollars(row["unknown_usd"]),
        cost_source=row["cost_source"],
        attempts=row["attempts"],
        latency_ms=row["latency_ms"],
        error_class=ErrorClass(row["error_class"]) if row["error_class"] else None,
        code=ErrorCode(row["error_code"]) if row["error_code"] else None,
        message=row["error_message"],
        flags=tuple(row["flags"].split(",")) if row["flags"] else (),
    )
