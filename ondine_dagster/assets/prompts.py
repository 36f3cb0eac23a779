"""`prompts`: renders each row, gives it its identity, and finds bad rows before money is spent."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from ondine_dagster.assets.events import readable_failures
from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.resources import LAKE, LakeResource
from ondine_dagster.ledger.identity import answer_key, text_digest
from ondine_dagster.llm.errors import ErrorClass
from ondine_dagster.llm.prompt import RenderError
from ondine_dagster.storage.lake import Lake, to_table

if TYPE_CHECKING:
    import pyarrow as pa

_DESCRIPTION = """The messages for each row, its answer key and a token estimate. A row whose prompt
cannot be rendered is a row error here, before money is spent."""
BATCH_ROWS = 5000
# What English text comes to on average; the reservation uses the true bound, one token per byte.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """What rendering a partition came to."""

    rows: int
    errors: Counter[str]
    estimated_tokens: int


def write_prompts(pipeline: Pipeline, lake: Lake, partition: str) -> PromptCounts:
    """Render the partition's rows into `prompts`; rows that cannot be rendered are row errors."""
    from ondine_dagster.assets.tables import PROMPTS

    source = lake.metadata(pipeline.name, "raw_rows", partition)
    errors: Counter[str] = Counter()
    rows = tokens = 0
    with lake.open_writer(pipeline.name, "prompts", partition, PROMPTS) as writer:
        for batch in lake.iter_batches(pipeline.name, "raw_rows", partition, BATCH_ROWS):
            columns = _prompt_columns(pipeline, batch)
            writer.append(to_table(columns, PROMPTS))
            rows += batch.num_rows
            tokens += sum(columns["estimated_tokens"])
            errors.update(code for code in columns["error_code"] if code)
        writer.commit(
            {
                "ondine.order": source["ondine.order"],
                "ondine.content_hash": source["ondine.content_hash"],
                "ondine.question_version": pipeline.question_version,
            }
        )
    return PromptCounts(rows, errors, tokens)


def _prompt_columns(pipeline: Pipeline, batch: "pa.RecordBatch") -> dict[str, Any]:
    rows = batch.num_rows
    rendered = [pipeline.renderer.render(row) for row in _cells(pipeline, batch)]
    messages = [None if isinstance(one, RenderError) else one for one in rendered]
    problems = [one if isinstance(one, RenderError) else None for one in rendered]
    digests = [None if one is None else text_digest(one) for one in messages]
    constant = (pipeline.model_digest, pipeline.sampling_digest, pipeline.schema_digest)
    return {
        "_row_key": batch.column("_row_key"),
        "_position": batch.column("_position"),
        "messages": messages,
        "answer_key": [None if one is None else answer_key(one, *constant) for one in digests],
        "estimated_tokens": [_estimate(one) for one in messages],
        "messages_digest": digests,
        "model_digest": [constant[0]] * rows,
        "sampling_digest": [constant[1]] * rows,
        "schema_digest": [constant[2]] * rows,
        "error_class": [ErrorClass.ROW if one else None for one in problems],
        "error_code": [one.code if one else None for one in problems],
        "error_message": [one.message if one else None for one in problems],
    }


def _cells(pipeline: Pipeline, batch: "pa.RecordBatch") -> Iterable[Mapping[str, Any]]:
    """Return the rows as dicts: only the columns that the prompt names, where it names them."""
    renderer = pipeline.renderer
    present = [name for name in batch.schema.names if name not in ("_row_key", "_position")]
    if not renderer.needs_whole_row:
        present = [name for name in present if name in renderer.columns]
    return _zipped(present, [batch.column(name).to_pylist() for name in present], batch.num_rows)


def _zipped(
    names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int
) -> Iterator[dict[str, Any]]:
    if not names:
        return iter([{} for _ in range(rows)])
    return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def _estimate(messages: str | None) -> int:
    return 0 if messages is None else -(-len(messages.encode()) // _BYTES_PER_TOKEN)


def build_prompts(
    pipeline: Pipeline, partitions: dg.DynamicPartitionsDefinition
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
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={LAKE},
    )
    def prompts(context: dg.AssetExecutionContext) -> None:
        resource: LakeResource = context.resources.ondine_lake
        with readable_failures():
            lake = resource.lake()
            for partition in context.partition_keys:
                counts = write_prompts(pipeline, lake, partition)
                context.add_asset_metadata(_metadata(counts), partition_key=partition)

    return prompts


def _metadata(counts: PromptCounts) -> dict[str, Any]:
    return {
        "dagster/partition_row_count": counts.rows,
        "estimated_prompt_tokens": counts.estimated_tokens,
        "rows_not_rendered": counts.errors.total(),
    }
