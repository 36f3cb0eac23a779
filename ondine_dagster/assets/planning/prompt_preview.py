"""The prompts of the first rows, as they would be sent now, and the rows that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ondine_dagster.assets.planning.plan import partition_slices
from ondine_dagster.assets.prompts import batch_rows, prompt_columns
from ondine_dagster.assets.rows.attachments import AttachmentReader
from ondine_dagster.assets.rows.outlook import Outlook
from ondine_dagster.assets.rows.prompt_parts import PromptParts, cache_remarks, parts_of
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.llm.cleaning import Cleaner
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row: its prompt, or why it has none. `position` counts the source's rows from 0."""

    position: int
    partition: str
    parts: PromptParts | None = None
    code: str = ""
    message: str = ""


@dataclass(slots=True)
class PromptPreview:
    """What rendering came to. `failed` are the first rows without a prompt, `codes` count all.

    `looked_at` is how many rows were rendered; `skipped` of them are asked nothing by `when`.
    `cleaned` are the rows that `prompt.clean` changed, by column and kind.
    """

    rows: list[PreviewRow] = field(default_factory=list)
    failed: list[PreviewRow] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    looked_at: int = 0
    skipped: int = 0
    cleaned: Mapping[tuple[str, str], int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def preview_prompts(
    pipeline: Pipeline,
    source: tuple[Lake, Snapshot],
    looked_at: Collection[str],
    wanted: int,
    connection: Connection | None,
) -> PromptPreview:
    """Return the first `wanted` prompts of the rows of `looked_at`, and what keeps others from it.

    All rows are rendered, except where they have files: then no more than are shown.
    """
    estimator = Outlook(pipeline, connection).estimator
    prompt = pipeline.dataset.prompt
    files = AttachmentReader(prompt, lambda: pipeline.files_folder, None)
    cleaner, found = Cleaner(prompt.clean), PromptPreview()
    for partition, batch in partition_slices(*source, batch_rows(pipeline)):
        if partition not in looked_at:
            continue
        if prompt.attached:
            batch = batch.slice(0, wanted - len(found.rows))
        columns = prompt_columns(pipeline, estimator, batch, files, cleaner)
        found.looked_at += batch.num_rows
        positions = columns["_position"].to_pylist()
        names = ("messages", "error_code", "error_message")
        for position, messages, code, message in zip(
            positions, *(columns[name] for name in names), strict=True
        ):
            if messages is not None:
                if len(found.rows) < wanted:
                    row = PreviewRow(position, partition, parts_of(messages, estimator))
                    found.rows.append(row)
            elif code is None:
                found.skipped += 1
            else:
                found.codes[code] += 1
                if len(found.failed) < wanted:
                    found.failed.append(PreviewRow(position, partition, None, code, message))
        if prompt.attached and len(found.rows) >= wanted:
            break
    found.cleaned = cleaner.counts
    found.remarks = (*_batching(pipeline), *cache_remarks(pipeline, estimator))
    return found


def _batching(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.packing is not None:
        batching, columns = pipeline.dataset.batching, pipeline.renderer.static_text.columns
        own = "own text"
        if batching.format == "csv" and columns:
            own = f"columns ({', '.join(columns)})"
        yield (
            f"batching.rows_per_request is {batching.rows_per_request}: several rows go into one "
            f"request, what they share once, and each row's {own} under a code. Here each stands "
            "alone."
        )
