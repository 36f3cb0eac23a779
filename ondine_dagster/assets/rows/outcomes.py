"""Where the ends of rows come from: the engine that asks, or the file of those asked before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from ondine_dagster.assets.rows.purged_files import refuse_purged
from ondine_dagster.assets.rows.row_events import events_of
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question, RowOutcome
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.provider import Usage
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import LakeFile

FEED_ROWS = 1000


def feeds(pipeline: Pipeline, lake: Lake, partitions: Sequence[str]) -> Iterator[PartitionFeed]:
    """Yield the prompts of each partition, read when the engine wants them.

    A run takes long, and prompts may be rendered anew meanwhile: notes and rows come from one open
    file. Raises OndineError for prompts of another declaration, whose keys would be wrong.
    """
    for partition in partitions:
        file = lake.open(pipeline.name, "prompts", partition)
        refuse_other_declaration(pipeline, partition, file.metadata)
        yield PartitionFeed(partition, _questions(file), file.metadata)


def refuse_other_declaration(pipeline: Pipeline, partition: str, notes: Mapping[str, str]) -> None:
    """Refuse prompts that were rendered under another declaration."""
    if notes["ondine.question_version"] != pipeline.question_version:
        raise OndineError(
            f"{pipeline.name} {partition}: `prompts` was rendered under another declaration: "
            "prompt, llm or output fields differ. Materialize `prompts` with `responses`."
        )
    if not pipeline.keys.made(notes):
        raise OndineError(
            f"{pipeline.name} {partition}: the answer keys in `prompts` are not made as the ledger "
            "makes them now, so that paid answers would not be found. Run `ondine-dagster rekey`, "
            "or materialize `prompts` with `responses`: both ask nobody for what is paid."
        )


def refuse_other_rows(
    pipeline: Pipeline, partition: str, rows: Mapping[str, str], notes: Mapping[str, str]
) -> None:
    """Refuse outcomes of other rows than `raw_rows` holds: rows are matched by place."""
    if rows["ondine.order"] != notes["ondine.order"]:
        raise OndineError(
            f"{pipeline.name} {partition}: `raw_rows` holds other rows, or in another order, than "
            "those that were asked. Materialize `raw_rows`, `prompts` and `responses` together."
        )


def _questions(file: LakeFile) -> Iterator[Sequence[Question | RowOutcome]]:
    names = ["_row_key", "answer_key", "messages", "error_class", "error_code", "error_message"]
    with closing(file):
        for batch in file.iter_batches(FEED_ROWS, names):
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
    if code is None:
        return RowOutcome(outcome=Outcome.SKIPPED)
    return RowOutcome(
        outcome=Outcome.ERROR,
        error_class=ErrorClass(error_class) if error_class else None,
        code=ErrorCode(code) if code else None,
        message=message,
    )


def stored_outcomes(lake: Lake, dataset: str, partitions: Sequence[str]) -> Iterator[Chunk]:
    """Yield what `responses` holds: parsing again asks nobody."""
    for partition in partitions:
        with closing(lake.open(dataset, "responses", partition)) as file:
            refuse_purged(dataset, partition, file.metadata)
            for batch in file.iter_batches(FEED_ROWS):
                rows = batch.to_pylist()
                keys = [row["answer_key"] for row in rows]
                outcomes = [stored_outcome(row) for row in rows]
                yield Chunk(partition, outcomes, keys, last=False, notes=file.metadata)
            yield Chunk(partition, [], [], last=True, notes=file.metadata)


def stored_outcome(row: Mapping[str, Any]) -> RowOutcome:
    """Return how a row of `responses` ended."""
    from ondine_dagster.assets.shared.tables import picodollars

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
        attempt=row.get("attempt_id"),  # files of an older version do not have it
        model_requested=row["model_requested"],
        events=events_of(row.get("events")),
        samples=tuple(
            replace(stored_outcome(one), answer_key=one["answer_key"])
            for one in row.get("samples") or ()
        ),
    )
