"""`responses`, `results`, `rejected_rows`: ask, parse, sort out. The only stage that spends.

One multi-asset, so that a finished partition gets its three files and three events at once. With
`responses` left out of the selection the stored answers are parsed again, for nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from ondine_dagster.assets.audit.manifest import Manifest
from ondine_dagster.assets.audit.replay import MODE_TAG, Mode, mode_of, replayed
from ondine_dagster.assets.audit.verify import ask_again, write_verified
from ondine_dagster.assets.audit.verify_sample import Wanted, sample
from ondine_dagster.assets.budgets import BudgetController
from ondine_dagster.assets.checks import check_specs, fail_if_blocked
from ondine_dagster.assets.finished import Finished
from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.metadata.lineage import SCHEMA, declared_columns
from ondine_dagster.assets.monitoring.heartbeat import Heartbeat
from ondine_dagster.assets.monitoring.live import LiveStep, announce
from ondine_dagster.assets.monitoring.signals import Signals
from ondine_dagster.assets.monitoring.slow_code import SlowCode
from ondine_dagster.assets.resources import (
    BUDGETS,
    LAKE,
    LLM,
    LakeResource,
    LLMProviderResource,
)
from ondine_dagster.assets.retry import Retry, retry_of
from ondine_dagster.assets.rows.fallback import with_fallback
from ondine_dagster.assets.rows.outcomes import (
    feeds,
    refuse_other_declaration,
    refuse_other_rows,
    stored_outcomes,
)
from ondine_dagster.assets.rows.outlook import estimate_step
from ondine_dagster.assets.rows.packs import pack_plan
from ondine_dagster.assets.rows.paying_again import lost_asked_again, pays_again
from ondine_dagster.assets.rows.samples import put_together, with_samples
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.assets.shared.partition_counts import (
    REJECTED,
    RESPONSES,
    RESULTS,
    TRIO,
    PartitionCounts,
)
from ondine_dagster.assets.shared.partitions import step_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.assets.verdicts.pilot import pilot_plan
from ondine_dagster.engine.rows import Chunk
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.estimates import Estimate, record, record_asked
from ondine_dagster.ledger.learnt import learnt
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.assets.partition_files import OnRows
    from ondine_dagster.ledger.ledger import Ledger
    from ondine_dagster.ledger.limits import Limit
    from ondine_dagster.llm.pack_size import PackPlan

_DESCRIPTIONS = {
    RESPONSES: "The answer or the typed failure of every row: text, tokens, cost, attempts. The "
    "only asset that spends; an answer that was paid once is never paid again.",
    RESULTS: "Rows that succeeded: source columns, parsed and validated output columns, lineage.",
    REJECTED: "Rows that did not: source columns, error class, code, message, raw text.",
}
CALL_TAG = "ondine/call"  # the same on all runs that one call of the command line makes
OnPartition = Callable[[str, PartitionCounts, str], None]


def build_responses(
    pipeline: Pipeline, partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetsDefinition:
    """Return the multi-asset of the three."""

    @dg.multi_asset(
        name=f"{pipeline.name}__responses",
        specs=_specs(pipeline),
        check_specs=check_specs(pipeline, TRIO),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.dataset.run_partitions),
        can_subset=True,
        required_resource_keys={LAKE, LLM, BUDGETS},
    )
    def responses(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
        # a return annotation with type arguments is refused by Dagster, without them by mypy
        selected = {key.path[-1] for key in context.selected_asset_keys}
        wanted = [asset for asset in TRIO if asset in selected]  # Dagster wants this order
        code_versions = {spec.key.path[-1]: spec.code_version or "" for spec in _specs(pipeline)}
        done = Finished(context, pipeline, wanted, code_versions)
        done.manifest = _manifest(context, pipeline, wanted)
        try:
            with stage(context, pipeline) as write:
                written = done.manifest.written(context.log.warning)
                signals = Signals(context, pipeline, write)
                with written, signals, SlowCode(pipeline, signals.warn):
                    done.signals = signals
                    _materialize(context, pipeline, wanted, done, signals)
                done.fail_if_red()
                done.judge()
                fail_if_blocked(pipeline, done.verdicts or ())
        except BaseException as error:  # also an interrupt: what is finished stays finished
            done.log_events()
            if isinstance(error, Exception):  # an interrupted run ends at once
                done.judge()
            raise
        if mode_of(context.run.tags) is not Mode.VERIFY:  # which changes nothing
            yield from done.results()

    return responses


def _manifest(
    context: dg.AssetExecutionContext, pipeline: Pipeline, wanted: Sequence[str]
) -> Manifest:
    llm: LLMProviderResource = context.resources.ondine_llm
    lake: LakeResource = context.resources.ondine_lake
    mode = mode_of(context.run.tags)
    run = context.run.run_id, run_scope(context), mode.value
    ledger, tags = Path(llm.ledger_path), context.run.tags
    return Manifest(pipeline, lake.lake(), ledger, run, wanted, tags)


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
    """Return the declared columns; the source's are shown with each written partition."""
    return {SCHEMA: dg.TableSchema(declared_columns(pipeline))}


def _materialize(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    wanted: Sequence[str],
    done: Finished,
    signals: Signals,
) -> None:
    lake_resource: LakeResource = context.resources.ondine_lake
    lake, partitions = lake_resource.lake(), step_keys(context)
    if RESPONSES not in wanted:
        chunks = stored_outcomes(lake, pipeline.name, partitions)
        write_partitions(pipeline, lake, chunks, wanted, done.partition)
        return
    mode = mode_of(context.run.tags)
    retry = retry_of(context.run.tags, pipeline, lake, run_scope(context))
    llm: LLMProviderResource = context.resources.ondine_llm
    pipeline.bind(llm.ledger(), lake)
    # what verify asks again is what the files say that was asked
    rows = 0 if mode is Mode.VERIFY else check_prompts(pipeline, lake, partitions)
    budgets: BudgetController = context.resources.ondine_budgets
    ledger, scope = llm.ledger(), run_scope(context)
    done.budgets = budgets.watch(ledger, pipeline.dataset, scope, signals.warn, done.observe)
    if mode is Mode.REPLAY:
        if retry is not None:
            raise OndineError(f"{MODE_TAG} is replay, which asks nobody: nothing is retried.")
        recorded = replayed(pipeline, ledger, lake, partitions)
        write_partitions(pipeline, lake, recorded, wanted, done.partition)
        return
    done.trace_host = llm.trace_host()
    limits = budgets.declare(ledger, pipeline.dataset)
    if mode is Mode.VERIFY:
        _verify(context, pipeline, lake, limits, done, signals)
        return
    if retry is not None:
        rows, done.estimate = retry.announce(partitions, ledger, context.log.info)
    else:
        done.estimate = _estimate(context, pipeline, lake, ledger.path)
    _record(context, pipeline, ledger, done.estimate)
    # the rows of a retry are known to be difficult: they say nothing of the others
    pilot = None if retry else pilot_plan(pipeline, done.estimate)
    asked = (retry.llm, retry.provider) if retry else (pipeline.dataset.llm, pipeline.provider)
    command = "retry" if retry else "run"
    run_id = context.run.run_id
    packs = _packs(pipeline, ledger, retry)
    dataset, why_again = pipeline.dataset, pipeline.why_again
    hear = signals.hear
    engine = llm.engine(
        dataset, *asked, scope, limits, pilot, command, run_id, why_again, packs, hear
    )
    done.engine = engine
    if done.manifest is not None:
        done.manifest.engine = engine
    done.live = LiveStep(pipeline.name, len(partitions), rows, engine.progress, engine.stop)
    announce(done.live)
    signals.started(len(partitions), rows, engine.progress)
    if retry:
        run = retry.chunks(engine, ledger, partitions)
    else:
        engine.progress.questions_per_row = pipeline.dataset.samples
        apart = with_samples(pipeline, feeds(pipeline, lake, partitions))
        if pays_again(context.run.tags):
            apart = lost_asked_again(ledger, pipeline.provider.ceiling, apart)
        run = engine.run(with_fallback(pipeline, ledger, apart))
        if pipeline.dataset.samples > 1:
            run = put_together(run, lambda partition: pipeline.dataset.samples)
    traces = _traces(context, ledger, lake, done)
    with Heartbeat(done.live, context.log.info, done.beat), traces, closing(run) as chunks:
        write_partitions(pipeline, lake, chunks, wanted, done.partition, signals.rows)
    if done.estimate.requests:
        with ledger.database.write() as connection:
            record_asked(connection, pipeline.name, scope, done.asked)
    done.not_asked = retry.not_asked if retry else Counter()
    done.beat()
    done.budgets.look()


def _verify(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    lake: Lake,
    limits: "tuple[Limit, ...]",
    done: Finished,
    signals: Signals,
) -> None:
    """Ask some rows again, and write what differs; the check `drift` tells of it."""
    llm: LLMProviderResource = context.resources.ondine_llm
    ledger, scope, run_id = llm.ledger(), run_scope(context), context.run.run_id
    wanted = Wanted.of(context.run.tags, run_id)
    keys = list(pipeline.snapshot(lake).by_key) if wanted.everywhere else step_keys(context)
    chosen = sample(pipeline, ledger, lake, keys, wanted)
    dataset = pipeline.dataset
    asked, hear = (dataset.llm, pipeline.provider), signals.hear
    engine = llm.engine(dataset, *asked, scope, limits, command="verify", run_id=run_id, hear=hear)
    done.engine = engine
    if done.manifest is not None:
        done.manifest.engine = engine
    done.live = LiveStep(pipeline.name, 0, len(chosen), engine.progress, engine.stop)
    announce(done.live)
    signals.started(len({one.partition for one in chosen}), len(chosen), engine.progress)
    traces = _traces(context, ledger, lake, done)
    try:
        with Heartbeat(done.live, context.log.info, done.beat), traces:
            found = ask_again(pipeline, engine, chosen)
    finally:
        signals.asked_again()
    write_verified(pipeline, lake, found, scope, wanted)


def _traces(
    context: dg.AssetExecutionContext, ledger: "Ledger", lake: Lake, done: Finished
) -> AbstractContextManager[object]:
    """Return what sends the traces of the step while it lasts, if anybody wants them."""
    if done.trace_host is None:
        return nullcontext()
    from ondine_dagster.assets.monitoring.traces import Tracing

    return Tracing(ledger.database, lake, done.trace_host, context.log.warning)


def _estimate(
    context: dg.AssetExecutionContext, pipeline: Pipeline, lake: Lake, ledger_path: Path
) -> Estimate:
    """Return what the step will probably use."""
    partitions, run_id = step_keys(context), context.run.run_id
    return estimate_step(pipeline, lake, partitions, ledger_path, run_id)


def _packs(pipeline: Pipeline, ledger: "Ledger", retry: Retry | None) -> "PackPlan | None":
    if pipeline.packing is None:
        return None
    provider = retry.provider if retry else pipeline.provider
    with ledger.database.read() as connection:
        known = learnt(connection, provider, pipeline.name)
    return pack_plan(pipeline, known, retry=retry is not None)


def _record(
    context: dg.AssetExecutionContext, pipeline: Pipeline, ledger: "Ledger", estimate: Estimate
) -> None:
    """Remember what the step will probably use as a part of what its run will."""
    if estimate.requests:
        with ledger.database.write() as connection:
            record(connection, pipeline.name, run_scope(context), estimate)


def run_scope(context: dg.AssetExecutionContext) -> str:
    """Return what "one run" means for money.

    The backfill, else the call of the command line, which may take several runs, else the first
    run of its retries.
    """
    run = context.run
    several = run.tags.get("dagster/backfill") or run.tags.get(CALL_TAG)
    return several or run.root_run_id or run.run_id


def check_prompts(pipeline: Pipeline, lake: Lake, partitions: Sequence[str]) -> int:
    """Refuse prompts of another declaration or of other rows, before money is spent.

    Returns how many rows there are.
    """
    count = 0
    for partition in partitions:
        with closing(lake.open(pipeline.name, "prompts", partition)) as prompts:
            prompts.refuse_other_key()
            refuse_other_declaration(pipeline, partition, prompts.metadata)
            rows = lake.metadata(pipeline.name, "raw_rows", partition)
            refuse_other_rows(pipeline, partition, rows, prompts.metadata)
            count += prompts.rows
    return count


def write_partitions(
    pipeline: Pipeline,
    lake: Lake,
    chunks: Iterator[Chunk],
    wanted: Collection[str],
    on_partition: OnPartition,
    on_rows: "OnRows | None" = None,
) -> None:
    """Write each partition when its last row has ended; `on_partition` hears of it after that.

    `on_rows` hears of rows as they end.
    """
    from ondine_dagster.assets.partition_files import PartitionFiles

    opened: dict[str, PartitionFiles] = {}
    try:
        for chunk in chunks:
            files = opened.get(chunk.partition)
            if files is None:
                files = PartitionFiles(
                    pipeline, lake, chunk.partition, wanted, chunk.notes, on_rows
                )
                opened[chunk.partition] = files
            files.append(chunk.outcomes, chunk.keys)
            if chunk.last:
                counts = files.commit()
                del opened[chunk.partition]
                on_partition(chunk.partition, counts, files.data_version)
    finally:
        for files in opened.values():
            files.abort()
