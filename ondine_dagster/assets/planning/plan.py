"""What a run would do with the source as it is now. Asks nobody and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from ondine_dagster.assets.prompts import batch_rows, needs, prompt_columns
from ondine_dagster.assets.rows.attachments import AttachmentReader
from ondine_dagster.assets.rows.cleaned import Cleaned, from_note
from ondine_dagster.assets.rows.outlook import BATCH_ROWS, Need, Outlook, Questions, RowNeed
from ondine_dagster.assets.rows.prompt_parts import cache_remarks
from ondine_dagster.assets.rows.staleness import Earlier
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.ledger.learnt import Learnt
from ondine_dagster.llm.cleaning import Cleaner
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.sealed_texts import readable
from ondine_dagster.storage.snapshot import Snapshot
from ondine_dagster.storage.snapshot_file import SNAPSHOT

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy.engine import Connection

_REUSED = ("_row_key", "answer_key", "messages", "error_code", "messages_digest")


@dataclass(frozen=True, slots=True)
class Stale:
    """Rows that were asked another question, why, and what asking them again will use."""

    reason: str
    rows: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """The rows by what they need, and what asking will use.

    `run` is for the partitions that were chosen, `everything` for all that were looked at.
    `repeated` rows share a question with another one that is asked. `servers` says where the
    answers that are paid came from. `cleaned` are the rows that `prompt.clean` changes.
    `by_form` are the tokens of an answer as its form tells them.
    """

    rows: Mapping[Need, int]
    stale: tuple[Stale, ...]
    repeated: int
    run: Estimate
    everything: Estimate
    servers: Mapping[str, int]
    learnt: Learnt | None
    by_form: float | None
    cleaned: Cleaned
    remarks: tuple[str, ...]


def plan_rows(
    pipeline: Pipeline,
    lake: Lake,
    source: tuple[Lake, Snapshot],
    looked_at: Collection[str],
    chosen: Collection[str],
    connection: Connection | None,
) -> DatasetPlan:
    """Return what the rows of `looked_at` need, and what a run of `chosen` will use.

    `source` is a snapshot and the lake that holds it, which need not be the current one.
    """
    outlook = Outlook(pipeline, connection)
    rows: Counter[Need] = Counter()
    servers: Counter[str] = Counter()
    stale: dict[str, Questions] = {}
    run, everything = Questions(), Questions()
    cleaner = Cleaner(pipeline.dataset.prompt.clean)
    for partition, found in _partitions(pipeline, lake, source, looked_at, outlook, cleaner):
        for questions in (run, everything, *stale.values()):
            questions.next_partition()
        for row in found:
            rows[row.need] += 1
            everything.add(row)
            if partition in chosen:
                run.add(row)
            if row.reason:
                stale.setdefault(row.reason, Questions()).add(row)
            if row.need is Need.PAID and row.base_url:
                servers[row.base_url] += 1
    estimator = outlook.estimator
    return DatasetPlan(
        rows=rows,
        stale=tuple(
            Stale(reason, questions.rows, questions.estimate(estimator))
            for reason, questions in sorted(stale.items(), key=lambda item: -item[1].rows)
        ),
        repeated=everything.repeated,
        run=run.estimate(estimator),
        everything=everything.estimate(estimator),
        servers=servers,
        learnt=estimator.learnt,
        by_form=estimator.by_form,
        cleaned=cleaner.counts,
        remarks=tuple(cache_remarks(pipeline, estimator)),
    )


_Slices = Iterator[tuple[str, "pa.RecordBatch"]]


def _partitions(
    pipeline: Pipeline,
    lake: Lake,
    source: tuple[Lake, Snapshot],
    looked_at: Collection[str],
    outlook: Outlook,
    cleaner: Cleaner,
) -> Iterator[tuple[str, Iterator[RowNeed]]]:
    """Yield the partitions and their rows; each has to be used before the next is taken."""
    content = {one.key: one.content_hash for one in source[1].partitions}
    prompted = set(lake.partitions(pipeline.name, "prompts"))  # listed once, not asked for each
    for partition, slices in groupby(
        partition_slices(*source, batch_rows(pipeline)), key=itemgetter(0)
    ):
        if partition in looked_at:
            earlier = Earlier(pipeline, lake, partition, content[partition])
            if partition in prompted and _rendered(pipeline, lake, partition, content[partition]):
                if pipeline.dataset.prompt.clean:
                    notes = lake.metadata(pipeline.name, "prompts", partition)
                    cleaner.counts.update(from_note(notes))
                yield partition, _stored(pipeline, lake, partition, outlook, earlier)
            else:
                yield partition, _rendered_now(pipeline, slices, outlook, earlier, cleaner)


def partition_slices(lake: Lake, snapshot: Snapshot, rows_at_once: int) -> _Slices:
    """Yield the rows of a snapshot in pieces of one partition, partition by partition."""
    file = snapshot.dataset, SNAPSHOT, snapshot.version
    for batch in lake.iter_batches(*file, batch_rows=rows_at_once):
        first = 0
        for partition, same in groupby(batch.column("_partition").to_pylist()):
            rows = sum(1 for _ in same)
            yield partition, batch.slice(first, rows)
            first += rows


def _rendered(pipeline: Pipeline, lake: Lake, partition: str, content_hash: str) -> bool:
    """Return whether the partition's `prompts` file can be read and is of today."""
    notes = lake.metadata(pipeline.name, "prompts", partition)
    same = (notes["ondine.question_version"], notes["ondine.content_hash"]) == (
        pipeline.question_version,
        content_hash,
    )
    file = lake.path(pipeline.name, "prompts", partition)
    return same and pipeline.keys.made(notes) and readable(file, notes)


def _stored(
    pipeline: Pipeline, lake: Lake, partition: str, outlook: Outlook, earlier: Earlier
) -> Iterator[RowNeed]:
    for batch in lake.iter_batches(pipeline.name, "prompts", partition, BATCH_ROWS, _REUSED):
        columns = (batch.column(name).to_pylist() for name in _REUSED)
        row_keys, keys, messages, codes, digests = columns
        yield from outlook.rows(keys, messages, codes, earlier.reasons(row_keys, digests))


def _rendered_now(
    pipeline: Pipeline, slices: _Slices, outlook: Outlook, earlier: Earlier, cleaner: Cleaner
) -> Iterator[RowNeed]:
    files = AttachmentReader(pipeline.dataset.prompt, lambda: pipeline.files_folder, None)
    for _, batch in slices:
        yield from needs(
            outlook, earlier, prompt_columns(pipeline, outlook.estimator, batch, files, cleaner)
        )
