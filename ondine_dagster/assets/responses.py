"""`responses`, `results`, `rejected_rows`: ask, parse, sort out. The only stage that spends.

One multi-asset, so that a finished partition gets its three files and three events at once. With
`responses` left out of the selection the stored answers are parsed again, for nothing.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import dagster as dg

from ondine_dagster.assets.events import (
    Metadata,
    dollars,
    partition_metadata,
    readable_failures,
    version_tags,
)
from ondine_dagster.assets.heartbeat import Heartbeat
from ondine_dagster.assets.keys import asset_key, asset_spec
from ondine_dagster.assets.outcomes import feeds, stored_outcomes
from ondine_dagster.assets.partition_counts import (
    REJECTED,
    RESPONSES,
    RESULTS,
    TRIO,
    PartitionCounts,
)
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.resources import LAKE, LLM, LakeResource, LLMProviderResource
from ondine_dagster.engine.rows import Chunk
from ondine_dagster.spec.errors import OndineError
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.engine.engine import Engine

_DESCRIPTIONS = {
    RESPONSES: "The answer or the typed failure of every row: text, tokens, cost, attempts. The "
    "only asset that spends; an answer that was paid once is never paid again.",
    RESULTS: "Rows that succeeded: source columns, parsed and validated output columns, lineage.",
    REJECTED: "Rows that did not: source columns, error class, code, message, raw text.",
}
_SHOWN_PARTITIONS = 20
OnPartition = Callable[[str, PartitionCounts, str], None]


def build_responses(
    pipeline: Pipeline, partitions: dg.DynamicPartitionsDefinition
) -> dg.AssetsDefinition:
    """Return the multi-asset of the three."""

    @dg.multi_asset(
        name=f"{pipeline.name}__responses",
        specs=_specs(pipeline),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        required_resource_keys={LAKE, LLM},
    )
    def responses(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        # a return annotation with type arguments is refused by Dagster, without them by mypy
        selected = {key.path[-1] for key in context.selected_asset_keys}
        wanted = [asset for asset in TRIO if asset in selected]  # Dagster wants this order
        done = _Done(context, pipeline, wanted)
        with readable_failures():
            _materialize(context, pipeline, wanted, done)
        done.fail_if_red()
        yield from done.results()

    return responses


def _specs(pipeline: Pipeline) -> list[dg.AssetSpec]:
    question, local = pipeline.question_version, pipeline.local_version
    return [
        asset_spec(
            pipeline,
            asset,
            description,
            kinds={"llm"} if asset == RESPONSES else {"parquet"},
            deps=["prompts"] if asset == RESPONSES else ["raw_rows", RESPONSES],
            code_version=question if asset == RESPONSES else f"{question}-{local}",
            skippable=True,
            metadata=_column_schema(pipeline) if asset == RESULTS else None,
        )
        for asset, description in _DESCRIPTIONS.items()
    ]


def _column_schema(pipeline: Pipeline) -> Metadata:
    """Return the output columns; the source's are known only when a partition is written."""
    output = pipeline.dataset.output
    described = {field.column or name: field for name, field in output.fields.items()}
    columns = [
        dg.TableColumn(name, described[name].type, described[name].description)
        if name in described
        else dg.TableColumn(name, "string")
        for name in pipeline.dataset.output_columns()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def _materialize(
    context: dg.AssetExecutionContext, pipeline: Pipeline, wanted: Sequence[str], done: "_Done"
) -> None:
    lake_resource: LakeResource = context.resources.ondine_lake
    lake, partitions = lake_resource.lake(), list(context.partition_keys)
    if RESPONSES not in wanted:
        chunks = stored_outcomes(lake, pipeline.name, partitions)
        write_partitions(pipeline, lake, chunks, wanted, "responses", done.partition)
        return
    check_prompts(pipeline, lake, partitions)
    llm: LLMProviderResource = context.resources.ondine_llm
    llm.ledger().bind_dataset(pipeline.name, pipeline.declared_in)
    engine = llm.engine(pipeline.dataset, pipeline.provider, run_scope(context))
    with (
        Heartbeat(engine.progress, context.log.info, pipeline.name),
        closing(engine.run(feeds(lake, pipeline.name, partitions))) as chunks,
    ):
        write_partitions(pipeline, lake, chunks, wanted, "prompts", done.partition)
    done.engine = engine


def run_scope(context: dg.AssetExecutionContext) -> str:
    """Return what "one run" means for money: the backfill, else the first run of its retries."""
    run = context.run
    return run.tags.get("dagster/backfill") or run.root_run_id or run.run_id


def check_prompts(pipeline: Pipeline, lake: Lake, partitions: Sequence[str]) -> None:
    """Refuse prompts that were rendered under another declaration: their keys would be wrong."""
    for partition in partitions:
        rendered = lake.metadata(pipeline.name, "prompts", partition)["ondine.question_version"]
        if rendered != pipeline.question_version:
            raise OndineError(
                f"{pipeline.name} {partition}: `prompts` was rendered before the declaration's "
                "prompt, llm or output fields changed. Materialize `prompts` with `responses`."
            )


def write_partitions(
    pipeline: Pipeline,
    lake: Lake,
    chunks: Iterator[Chunk],
    wanted: Collection[str],
    origin: str,
    on_partition: OnPartition,
) -> None:
    """Write each partition when its last row has ended; `on_partition` hears of it after that."""
    from ondine_dagster.assets.partition_files import PartitionFiles

    with ExitStack() as stack:
        opened: dict[str, PartitionFiles] = {}
        for chunk in chunks:
            files = opened.get(chunk.partition)
            if files is None:
                files = PartitionFiles(pipeline, lake, chunk.partition, wanted, origin)
                opened[chunk.partition] = stack.enter_context(files)
            files.append(chunk.outcomes)
            if chunk.last:
                counts = files.commit()
                del opened[chunk.partition]
                on_partition(chunk.partition, counts, files.data_version)


class _Done:
    """The partitions that are finished: an event for each at once, and the end of the step."""

    def __init__(
        self, context: dg.AssetExecutionContext, pipeline: Pipeline, wanted: Sequence[str]
    ) -> None:
        self._context = context
        self._pipeline = pipeline
        self._wanted = wanted
        self._code_version = {
            spec.key.path[-1]: spec.code_version or "" for spec in _specs(pipeline)
        }
        self._red: dict[str, PartitionCounts] = {}
        self.engine: Engine | None = None

    def partition(self, partition: str, counts: PartitionCounts, data_version: str) -> None:
        """Log the events of a finished partition, or remember it as red."""
        self._context.log.info(_partition_line(self._pipeline.name, partition, counts))
        if counts.red:
            self._red[partition] = counts
            return
        for asset in self._wanted:
            metadata = partition_metadata(asset, counts)
            key = asset_key(self._pipeline.name, asset)
            # the step's own final event repeats this one and shows its metadata instead
            self._context.add_asset_metadata(metadata, asset_key=key, partition_key=partition)
            if self._context.has_partition_key:
                continue
            self._context.log_event(
                dg.AssetMaterialization(
                    asset_key=key,
                    partition=partition,
                    metadata=metadata,
                    tags=version_tags(self._code_version[asset], data_version),
                )
            )

    def fail_if_red(self) -> None:
        """Fail the step where a partition is red: its good ones have their events already."""
        if not self._red:
            return
        stopped = self.engine.stopped if self.engine else None
        waiting = sum(counts.unanswered for counts in self._red.values())
        shown = ", ".join(list(self._red)[:_SHOWN_PARTITIONS])
        more = ", ..." if len(self._red) > _SHOWN_PARTITIONS else ""
        reason = f" {stopped.message}." if stopped else _reasons(self._red)
        raise dg.Failure(
            description=(
                f"{self._pipeline.name}: {len(self._red)} partition(s) are not complete "
                f"({shown}{more}): {waiting} row(s) wait for another run.{reason} What was "
                "answered is kept: materialize these partitions again and only the rest is paid."
            ),
            metadata={
                "red_partitions": ", ".join(self._red),
                "rows_waiting": waiting,
                "cost_usd": dollars(sum(counts.cost for counts in self._red.values())),
            },
            allow_retries=False,
        )

    def results(self) -> Iterator[dg.MaterializeResult[None]]:
        """Yield the step's final results."""
        for asset in self._wanted:
            yield dg.MaterializeResult(asset_key=asset_key(self._pipeline.name, asset))


def _reasons(red: dict[str, PartitionCounts]) -> str:
    """Return the first message of each reason, once."""
    if all(counts.kept_older for counts in red.values()):
        return " The files in place answer more rows than this run did, and were kept."
    messages = {
        code: message for counts in red.values() for code, message in counts.messages.items()
    }
    return "".join(f" {message}." for message in list(messages.values())[:3])


def _partition_line(name: str, partition: str, counts: PartitionCounts) -> str:
    state = "NOT COMPLETE, " if counts.red else ""
    waiting = f", {counts.unanswered} waiting" if counts.unanswered else ""
    return (
        f"{name} {partition}: {state}{counts.rows} rows, {counts.results} results, "
        f"{counts.rejected - counts.unanswered} rejected{waiting}, {counts.reused} already paid, "
        f"${dollars(counts.cost):.6f}"
    )
