"""Which partitions of a dataset an unfinished run or backfill works on already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import dagster as dg
from dagster._core.execution.backfill import (
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

UNFINISHED_RUNS = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_UNFINISHED_BACKFILLS = (
    BulkActionStatus.REQUESTED,
    BulkActionStatus.CANCELING,
    BulkActionStatus.FAILING,
)
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
_PARTITION = "dagster/partition"


def keys_at_work(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    asset: dg.AssetKey,
    order: Sequence[str],
) -> set[str]:
    """Return the keys of `order` for which `asset` is about to be made.

    `order` are the partitions as Dagster has them: ranges are of neighbours in it.
    """
    found: set[str] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED_RUNS))):
        if asset in _assets_of(run, repository):
            found.update(keys_of(run, order))
    bulk = BulkActionsFilter(statuses=list(_UNFINISHED_BACKFILLS))
    for backfill in instance.get_backfills(filters=bulk):
        found.update(_keys_of_backfill(backfill, repository, asset, order))
    return found


def keys_of(run: dg.DagsterRun, order: Sequence[str]) -> Sequence[str]:
    """Return the partitions of a run; those without tags are of an unpartitioned dataset: all."""
    one, first, last = (run.tags.get(tag) for tag in (_PARTITION, RANGE_START, RANGE_END))
    if one is not None:
        return [one]
    if first is None or last is None:
        return order
    if first not in order or last not in order:
        return []
    return order[order.index(first) : order.index(last) + 1]


def _assets_of(run: dg.DagsterRun, repository: dg.RepositoryDefinition) -> Collection[dg.AssetKey]:
    if run.asset_selection:
        return run.asset_selection
    return _assets_of_job(run.job_name, repository)


def _assets_of_job(job: str | None, repository: dg.RepositoryDefinition) -> Collection[dg.AssetKey]:
    if job is None or not repository.has_job(job):
        return ()
    return set(repository.get_job(job).asset_layer.executable_asset_keys)


def _keys_of_backfill(
    backfill: PartitionBackfill,
    repository: dg.RepositoryDefinition,
    asset: dg.AssetKey,
    order: Sequence[str],
) -> Iterable[str]:
    if not backfill.is_asset_backfill:
        ours = asset in _assets_of_job(backfill.job_name, repository)
        return (backfill.partition_names or ()) if ours else ()
    target = backfill.get_asset_backfill_data(repository.asset_graph).target_subset
    if asset in target.non_partitioned_asset_keys:
        return order
    partitioned = asset in target.partitions_subsets_by_asset_key
    return target.get_partitions_subset(asset).get_partition_keys() if partitioned else ()
