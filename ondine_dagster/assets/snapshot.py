"""`snapshot`: reads the source once; every row gets its key and its partition."""

from pathlib import Path
from typing import Any

import dagster as dg

from ondine_dagster.assets.checks import check_specs, fail_if_blocked, log_verdicts
from ondine_dagster.assets.keys import asset_spec, upstream_key
from ondine_dagster.assets.resources import LAKE, LLM, LakeResource, LLMProviderResource
from ondine_dagster.assets.shared.at_work import UNFINISHED_RUNS
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.assets.shared.next_step import next_step
from ondine_dagster.assets.shared.partitions import is_registered
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.run_tags import THEN
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.assets.shared.status import dataset_status
from ondine_dagster.assets.unassigned import described, write_unassigned
from ondine_dagster.assets.verdicts.source_verdicts import (
    largest_snapshot,
    refused,
    source_verdicts,
)
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.asset_source import keep_asset_table
from ondine_dagster.storage.dataset_source import gaps
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.partitioning import UNASSIGNED
from ondine_dagster.storage.snapshot import (
    SnapshotResult,
    current_snapshot,
    exclusive,
    take_snapshot,
)

_DESCRIPTION = """**Start here.** Reads the source once and keeps it; asks nobody and costs nothing.
Every row gets its key and a partition that never changes; new rows make new partitions.

It labels nothing by itself: the partitions of a run are fixed when it is launched. Its metadata
`next_step` says what to do next.
"""
_SHOWN_KEYS = 20


def build_snapshot(pipeline: Pipeline, *, loads_asset: bool = True) -> dg.AssetsDefinition:
    """Return the `snapshot` asset; it also registers the partitions of the rows it found.

    `loads_asset`: an upstream asset is loaded through its IO manager. Without, as on the command
    line where its code location is not there, the rows are those that were loaded last.
    """
    upstream = upstream_key(pipeline)
    file = pipeline.asset_table_file if loads_asset else None

    @dg.multi_asset(
        name=f"{pipeline.name}__take_snapshot",  # jobs and steps share their names
        specs=[
            asset_spec(
                pipeline,
                "snapshot",
                _DESCRIPTION,
                kinds={"parquet"},
                upstream=[upstream] if upstream else [],
            )
        ],
        ins={"source": dg.AssetIn(key=upstream)} if file else {},
        check_specs=check_specs(pipeline, ["snapshot"]),
        can_subset=True,  # the verdicts are logged, not yielded: see checks.py
        required_resource_keys={LAKE, LLM},
    )
    def snapshot(context: dg.AssetExecutionContext, **loaded: Any):  # type: ignore[no-untyped-def]
        resource: LakeResource = context.resources.ondine_lake
        llm: LLMProviderResource = context.resources.ondine_llm
        with stage(context, pipeline):
            lake = resource.lake()
            if file is not None:
                keep_asset_table(file, loaded["source"], pipeline.dataset.source.asset or "")
            pipeline.bind(llm.ledger(), lake)
            by_person = THEN not in context.run.tags
            largest = largest_snapshot(lake, pipeline.name)
            try:
                source = pipeline.source()
                result = take_snapshot(lake, pipeline.dataset, source, by_person=by_person)
            except OndineError as error:  # it may quote cells
                log_verdicts(context, pipeline, refused(error, largest), "the source")
                raise OndineError(pipeline.scrub(str(error))) from None
            check_source_columns(pipeline, result.snapshot.source_columns)
            write_unassigned(pipeline, lake, result.snapshot, result.reasons)
            register_partitions(context.instance, lake, pipeline, context.run.run_id)
            status = dataset_status(pipeline, lake, result.snapshot)
            _tell(context.log, pipeline, lake, result)
        verdicts = source_verdicts(pipeline, result, largest, status)
        log_verdicts(context, pipeline, verdicts, "the whole snapshot")
        fail_if_blocked(pipeline, verdicts)
        # yielded: what is returned is taken for a tuple, one item for each output
        yield dg.MaterializeResult(
            metadata=_metadata(result, next_step(status)),
            data_version=dg.DataVersion(result.snapshot.version),
        )

    return snapshot


def upstream_gap(pipeline: Pipeline, lake: Lake) -> str | None:
    """Return what the dataset upstream has not brought (yet); None where there is nothing."""
    upstream = pipeline.dataset.source.dataset
    return None if upstream is None else gaps(lake, upstream).sentence


def register_partitions(
    instance: dg.DagsterInstance, lake: Lake, pipeline: Pipeline, run_id: str | None = None
) -> None:
    """Make Dagster's list of partitions equal to the current snapshot's.

    `run_id` is the run that asks for it, if one does.

    Windows of time and listed values Dagster knows by itself: then its list has to be empty.

    Under the snapshot's lock and from the pointer: another process may have taken a newer one.
    While a run works on the dataset nothing is taken from the list, as that run would break.
    """
    name = pipeline.name
    with exclusive(lake, name):
        snapshot = current_snapshot(lake, name)
        wanted = [] if snapshot is None or not is_registered(pipeline) else list(snapshot.by_key)
        known = set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, [key for key in wanted if key not in known])
        gone = known.difference(wanted)
        if gone and not _at_work(instance, name, run_id):
            for key in gone:
                instance.delete_dynamic_partition(name, key)


def _tell(
    log: dg.DagsterLogManager, pipeline: Pipeline, lake: Lake, result: SnapshotResult
) -> None:
    """Log what came of a snapshot, and what a person should know of it."""
    log.info(_summary(pipeline.name, result))
    if gap := upstream_gap(pipeline, lake):
        log.warning(f"{pipeline.name}: {gap}")
    if result.reasons:
        reasons = pipeline.scrub(described(result.reasons))
        log.warning(
            f"{pipeline.name}: {len(result.reasons):,} rows fit no partition and are rejected "
            f"({reasons}). See rejected_rows, partition {UNASSIGNED}."
        )
    if result.other_kind:
        log.warning(
            f"{pipeline.name}: partitions were made by {result.other_kind} before, and are now "
            f"made by {result.snapshot.kind}: every row has another partition, and all have "
            "to run again. Answers that are paid are found in the ledger: nothing is bought "
            "again."
        )
    if result.rows_gone:
        log.warning(f"{pipeline.name}: {_shrunk(result)}")


def _at_work(instance: dg.DagsterInstance, name: str, run_id: str | None) -> bool:
    """Return whether another run works, or may work, on partitions of the dataset."""
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED_RUNS)))
    return any(_may_work_on(run, name) for run in unfinished if run.run_id != run_id)


def _may_work_on(run: dg.DagsterRun, name: str) -> bool:
    if not run.asset_selection:  # a whole job, which anybody may have defined
        return not run.job_name.endswith("__snapshot")
    return any(key.path[0] == name and key.path[-1] != "snapshot" for key in run.asset_selection)


def _summary(name: str, result: SnapshotResult) -> str:
    snapshot, count = result.snapshot, len(result.snapshot.partitions)
    return (
        f"{name}: {snapshot.rows} rows in {count} partition{'s' if count != 1 else ''} "
        f"({len(result.added)} new, {len(result.changed)} changed, {len(result.removed)} gone)"
    )


def _metadata(result: SnapshotResult, next_step: str | None) -> Metadata:
    snapshot = result.snapshot
    return {
        "dagster/row_count": snapshot.rows,
        "partitions": len(snapshot.partitions),
        "unassigned_rows": snapshot.unassigned_rows,
        "new_partitions": _keys(result.added),
        "changed_partitions": _keys(result.changed),
        "removed_partitions": _keys(result.removed),
        **({"rows_gone": result.rows_gone, "shrunk": _shrunk(result)} if result.rows_gone else {}),
        "source": _shown_source(snapshot.source_path),
        "columns": ", ".join(snapshot.source_columns),
        "next_step": next_step or "nothing: every row has an outcome",
    }


def _shown_source(shown: str) -> dg.MetadataValue:
    is_path = Path(shown).is_absolute()
    return dg.MetadataValue.path(shown) if is_path else dg.MetadataValue.text(shown)


def _shrunk(result: SnapshotResult) -> str:
    return (
        f"the source has {result.rows_gone:,} rows fewer than before. Their files and answers are "
        "kept; results as people see them leave them out."
    )


def _keys(keys: tuple[str, ...]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS])
    return f"{shown}, ... ({len(keys)})" if len(keys) > _SHOWN_KEYS else shown or "none"
