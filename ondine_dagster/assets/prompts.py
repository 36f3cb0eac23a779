"""`prompts`: renders each row, gives it its identity, and finds bad rows before money is spent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from ondine_dagster.assets.audit.replay import Missing, Mode, NotRecorded, mode_of
from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.metadata.lineage import written_columns
from ondine_dagster.assets.resources import LAKE, LLM, LakeResource, LLMProviderResource
from ondine_dagster.assets.rows.attachments import AttachmentReader
from ondine_dagster.assets.rows.cleaned import CLEANED_NOTE, cleaned_note, cleaned_text
from ondine_dagster.assets.rows.outlook import (
    BATCH_ROWS,
    Need,
    Outlook,
    Questions,
    RowNeed,
    estimate_notes,
)
from ondine_dagster.assets.rows.prompt_parts import PromptParts, cache_remarks, parts_of, shown
from ondine_dagster.assets.rows.redaction import PromptRedactor
from ondine_dagster.assets.rows.samples import samples_remark
from ondine_dagster.assets.rows.staleness import Earlier
from ondine_dagster.assets.shared.events import ROW_COUNT, Metadata, dollars
from ondine_dagster.assets.shared.partitions import event_key, step_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.estimates import Estimate, Estimator
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.cleaning import Cleaner
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.prompt import PromptRenderer, RenderError
from ondine_dagster.patterns import PatternTooSlow
from ondine_dagster.privacy.scrubbing import Scrub
from ondine_dagster.spec import SNAPSHOT_COLUMNS
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import to_table

if TYPE_CHECKING:
    import pyarrow as pa

_DESCRIPTION = """The messages for each row, its answer key and a token estimate. A row whose prompt
cannot be rendered is a row error here, before money is spent; a row for which `when` is not true
has neither messages nor error."""

ROWS_WITH_FILES = 200


@dataclass(slots=True)
class PromptCounts:
    """What rendering a partition came to.

    `estimated_tokens` are those of all its prompts; `estimate` is for the questions that have to
    be asked, as the ledger is now. `stale` rows are among these, by what changed. `cleaned` are the
    rows that `prompt.clean` changed, by column and kind; `first` is the prompt of the first row
    that has one, `remarks` say what keeps a cache from what all rows share.
    """

    rows: int = 0
    skipped: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    estimated_tokens: int = 0
    paid: int = 0
    stale: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[tuple[str, str]] = field(default_factory=Counter)
    estimate: Estimate = field(default_factory=Estimate)
    first: PromptParts | None = None
    remarks: tuple[str, ...] = ()


def write_prompts(
    pipeline: Pipeline,
    lake: Lake,
    partition: str,
    outlook: Outlook | None = None,
    run_id: str = "",
    store: AttachmentStore | None = None,
    *,
    replay: bool = False,
) -> PromptCounts:
    """Render the partition's rows into `prompts`; rows that cannot be rendered are row errors.

    `replay`: raise NotRecorded for rows whose answers are not recorded, and leave the file as it
    is. `store` is where the files of the rows go. `outlook` says what is paid already;
    `run_id` is noted with the estimate made of it.
    """
    from ondine_dagster.assets.shared.tables import PROMPTS

    outlook = outlook or Outlook(pipeline, None)
    source = lake.metadata(pipeline.name, "raw_rows", partition)
    earlier = Earlier(pipeline, lake, partition, source["ondine.content_hash"])
    counts, questions = PromptCounts(), Questions(outlook.seen)
    attachments = AttachmentReader(pipeline.dataset.prompt, lambda: pipeline.files_folder, store)
    cleaner = Cleaner(pipeline.dataset.prompt.clean)
    missing = Missing(pipeline, lake, partition) if replay else None
    with lake.open_writer(pipeline.name, "prompts", partition, PROMPTS) as writer:
        for batch in lake.iter_batches(pipeline.name, "raw_rows", partition, batch_rows(pipeline)):
            columns = prompt_columns(pipeline, outlook.estimator, batch, attachments, cleaner)
            writer.append(to_table(columns, PROMPTS))
            first = next(filter(None, columns["messages"]), None)
            if counts.first is None and first is not None:
                counts.first = parts_of(first, outlook.estimator)
            counts.rows += batch.num_rows
            counts.estimated_tokens += sum(columns["estimated_tokens"])
            counts.errors.update(code for code in columns["error_code"] if code)
            needed = list(needs(outlook, earlier, columns))
            if missing is not None:
                row_keys = batch.column("_row_key").to_pylist()
                messages, codes = columns["messages"], columns["error_code"]
                missing.look(row_keys, messages, codes, needed)
            for row in needed:
                questions.add(row)
                counts.paid += row.need is Need.PAID
                counts.skipped += row.need is Need.SKIPPED
                if row.reason:
                    counts.stale[row.reason] += 1
        if missing is not None:
            missing.refuse()
        counts.estimate = questions.estimate(outlook.estimator)
        counts.cleaned = cleaner.counts
        counts.remarks = tuple(cache_remarks(pipeline, outlook.estimator))
        writer.commit(
            {
                "ondine.order": source["ondine.order"],
                "ondine.content_hash": source["ondine.content_hash"],
                "ondine.question_version": pipeline.question_version,
                CLEANED_NOTE: cleaned_note(counts.cleaned),
                **estimate_notes(counts.estimate, run_id),
                **PromptRedactor(pipeline).notes(),
                **pipeline.keys.notes,
            }
        )
    return counts


def batch_rows(pipeline: Pipeline) -> int:
    """Return how many rows are rendered at a time: few where a cell may hold a whole image."""
    return ROWS_WITH_FILES if pipeline.dataset.prompt.attached else BATCH_ROWS


def needs(outlook: Outlook, earlier: Earlier, columns: Mapping[str, Any]) -> Iterator[RowNeed]:
    """Yield what the rows of these columns of `prompts` need."""
    keys = columns["_row_key"].to_pylist()
    reasons = earlier.reasons(keys, columns["messages_digest"])
    return outlook.rows(columns["answer_key"], columns["messages"], columns["error_code"], reasons)


def prompt_columns(
    pipeline: Pipeline,
    estimator: Estimator,
    batch: "pa.RecordBatch",
    attachments: AttachmentReader,
    cleaner: Cleaner,
) -> dict[str, Any]:
    """Render rows; return the columns of `prompts`. A skipped row has no messages and no error.

    `cleaner` counts what it changes.
    """
    rows = batch.num_rows
    rendered = _rendered_where_asked(pipeline, _cells(pipeline, batch), attachments, cleaner)
    messages = [None if isinstance(one, RenderError) else one for one in rendered]
    problems = [one if isinstance(one, RenderError) else None for one in rendered]
    digests = [None if one is None else text_digest(one) for one in messages]
    hidden = pipeline.keys.hidden
    constant = (pipeline.model_digest, pipeline.sampling_digest, pipeline.schema_digest)
    return {
        "_row_key": batch.column("_row_key"),
        "_position": batch.column("_position"),
        "messages": messages,
        "answer_key": [None if one is None else pipeline.sample_key(one, 0) for one in digests],
        "estimated_tokens": [0 if one is None else estimator.tokens_of(one) for one in messages],
        "messages_digest": [None if one is None else hidden(one) for one in digests],
        "model_digest": [constant[0]] * rows,
        "sampling_digest": [constant[1]] * rows,
        "schema_digest": [constant[2]] * rows,
        "error_class": [ErrorClass.ROW if one else None for one in problems],
        "error_code": [one.code if one else None for one in problems],
        "error_message": [one.message if one else None for one in problems],
    }


def _rendered_where_asked(
    pipeline: Pipeline,
    rows: Iterable[Mapping[str, Any]],
    attachments: AttachmentReader,
    cleaner: Cleaner,
) -> list[str | RenderError | None]:
    """Render the rows for which `when` is true; None: skipped, its files are not looked at."""
    condition = pipeline.condition
    if condition is None:
        return [*_rendered(pipeline, rows, attachments, cleaner)]
    rows = list(rows)
    asked = [condition.holds(row) for row in rows]
    chosen = (row for row, ask in zip(rows, asked, strict=True) if ask is True)
    rendered = iter(_rendered(pipeline, chosen, attachments, cleaner))
    return [
        one if isinstance(one, RenderError) else next(rendered) if one else None for one in asked
    ]


def _rendered(
    pipeline: Pipeline,
    rows: Iterable[Mapping[str, Any]],
    attachments: AttachmentReader,
    cleaner: Cleaner,
) -> list[str | RenderError]:
    renderer, redactor = pipeline.renderer, PromptRedactor(pipeline)
    if not attachments.wanted:
        return [_render(renderer, cleaner, redactor, row) for row in rows]
    rows = list(rows)
    read = zip(rows, attachments.read(rows), strict=True)
    return [
        one if isinstance(one, RenderError) else _render(renderer, cleaner, redactor, row, one)
        for row, one in read
    ]


def _render(
    renderer: PromptRenderer,
    cleaner: Cleaner,
    redactor: PromptRedactor,
    row: Mapping[str, Any],
    attached: Sequence[Attachment] = (),
) -> str | RenderError:
    """Render a row without what the provider must not see.

    That is taken out first of all: what is cut off or tidied is not recognized any more.
    """
    try:
        messages = renderer.render(cleaner.clean(redactor.row(row)), attached)
        return messages if isinstance(messages, RenderError) else redactor.messages(messages)
    except PatternTooSlow as slow:
        return RenderError(ErrorCode.PATTERN_TOO_SLOW, f"privacy.patterns: {slow}")


def _cells(pipeline: Pipeline, batch: "pa.RecordBatch") -> Iterable[Mapping[str, Any]]:
    """Return the rows as dicts: only the columns that prompt and `when` name, where they do."""
    readers = [one for one in (pipeline.renderer, pipeline.condition) if one is not None]
    present = [name for name in batch.schema.names if name not in SNAPSHOT_COLUMNS]
    if not any(one.needs_whole_row for one in readers):
        present = [name for name in present if any(name in one.columns for one in readers)]
    return _zipped(present, [batch.column(name).to_pylist() for name in present], batch.num_rows)


def _zipped(
    names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int
) -> Iterator[dict[str, Any]]:
    if not names:
        return iter([{} for _ in range(rows)])
    return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def build_prompts(
    pipeline: Pipeline, partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetsDefinition:
    """Return the `prompts` asset."""
    spec = asset_spec(
        pipeline,
        "prompts",
        _DESCRIPTION,
        kinds={"jinja", "parquet"},
        deps=["raw_rows"],
        code_version=pipeline.question_version,
    )

    @dg.multi_asset(
        name=f"{pipeline.name}__prompts",
        specs=[spec],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.dataset.run_partitions),
        required_resource_keys={LAKE, LLM},
    )
    def prompts(context: dg.AssetExecutionContext) -> None:
        resource: LakeResource = context.resources.ondine_lake
        llm: LLMProviderResource = context.resources.ondine_llm
        with stage(context, pipeline), reading(Path(llm.ledger_path)) as connection:
            replay = mode_of(context.run.tags) is Mode.REPLAY
            lake, outlook = resource.lake(), Outlook(pipeline, connection)
            store = None if replay else llm.attachments()  # without one nothing is fetched
            remark = samples_remark(pipeline)
            few: Metadata = {"samples": remark} if remark else {}
            missed: list[str] = []
            for partition in step_keys(context):
                try:
                    counts = write_prompts(
                        pipeline, lake, partition, outlook, context.run.run_id, store, replay=replay
                    )
                except NotRecorded as error:  # the others are looked at as well
                    missed.append(str(error))
                    continue
                columns = written_columns(pipeline, lake, "prompts", partition)
                metadata = _metadata(counts, pipeline.scrub) | few | columns
                context.add_asset_metadata(metadata, partition_key=event_key(pipeline, partition))
            if missed:
                raise NotRecorded("\n".join(missed))

    return prompts


def _metadata(counts: PromptCounts, scrub: Scrub) -> Metadata:
    metadata: Metadata = {
        ROW_COUNT: counts.rows,
        "estimated_prompt_tokens": counts.estimated_tokens,
        "rows_not_rendered": counts.errors.total(),
        "rows_skipped": counts.skipped,
        "rows_already_paid": counts.paid,
        "requests_to_send": counts.estimate.requests,
        "expected_usd": dollars(counts.estimate.expected),
        "at_most_usd": dollars(counts.estimate.most),
    }
    if counts.first is not None:
        metadata["first_prompt"] = dg.MetadataValue.md(scrub(shown(counts.first)))
    if counts.remarks:
        metadata["prompt_cache"] = " ".join(counts.remarks)
    if counts.cleaned:
        metadata["rows_cleaned"] = cleaned_text(counts.cleaned)
    if counts.stale:
        why = (f"{rows:,} rows: {reason}" for reason, rows in counts.stale.most_common())
        metadata["asked_again"] = "; ".join(why)
    return metadata
