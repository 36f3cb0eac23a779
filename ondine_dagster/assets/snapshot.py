"""`snapshot`: reads the source once; every row gets its key and its partition."""

import dagster as dg
from sqlalchemy.exc import IntegrityError

from ondine_dagster.assets.events import Metadata, readable_failures
from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.resources import LAKE, LakeResource
from ondine_dagster.storage.snapshot import SnapshotResult, take_snapshot

_DESCRIPTION = """Reads the source once and keeps it. Every row gets its key and a partition that
never changes; new rows make new partitions.

Next: backfill the missing partitions of the stages below (this asset cannot: the partitions of a
run are fixed when it is launched).
"""
_SHOWN_KEYS = 20


def build_snapshot(
    pipeline: Pipeline, partitions: dg.DynamicPartitionsDefinition
) -> dg.AssetsDefinition:
    """Return the `snapshot` asset; it also registers the partitions of the rows it found."""

    @dg.multi_asset(
        name=f"{pipeline.name}__snapshot",
        specs=[asset_spec(pipeline, "snapshot", _DESCRIPTION, kinds={"parquet"})],
        required_resource_keys={LAKE},
    )
    def snapshot(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        resource: LakeResource = context.resources.ondine_lake
        with readable_failures():
            lake, source = resource.lake(), pipeline.source_path()
            result = take_snapshot(lake, pipeline.dataset, source)
            pipeline.check(result.snapshot.source_columns)
        register_partitions(context.instance, partitions.name or pipeline.name, result)
        context.log.info(_summary(pipeline.name, result))
        return dg.MaterializeResult(
            metadata=_metadata(result), data_version=dg.DataVersion(result.snapshot.version)
        )

    return snapshot


def register_partitions(instance: dg.DagsterInstance, name: str, result: SnapshotResult) -> None:
    """Make Dagster's list of partitions equal to the snapshot's."""
    wanted = [partition.key for partition in result.snapshot.partitions]
    known = set(instance.get_dynamic_partitions(name))
    try:
        instance.add_dynamic_partitions(name, [key for key in wanted if key not in known])
    except IntegrityError:  # another run registers the same ones at this moment
        known = set(instance.get_dynamic_partitions(name))
        instance.add_dynamic_partitions(name, [key for key in wanted if key not in known])
    for gone in known.difference(wanted):
        instance.delete_dynamic_partition(name, gone)


def _summary(name: str, result: SnapshotResult) -> str:
    snapshot = result.snapshot
    return (
        f"{name}: {snapshot.rows} rows in {len(snapshot.partitions)} partitions "
        f"({len(result.added)} new, {len(result.changed)} changed, {len(result.removed)} gone)"
    )


def _metadata(result: SnapshotResult) -> Metadata:
    snapshot = result.snapshot
    return {
        "dagster/row_count": snapshot.rows,
        "partitions": len(snapshot.partitions),
        "new_partitions": _keys(result.added),
        "changed_partitions": _keys(result.changed),
        "removed_partitions": _keys(result.removed),
        "source": dg.MetadataValue.path(snapshot.source_path),
        "columns": ", ".join(snapshot.source_columns),
        "next_step": "backfill the missing and changed partitions of the stages below",
    }


def _keys(keys: tuple[str, ...]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS])
    return f"{shown}, ... ({len(keys)})" if len(keys) > _SHOWN_KEYS else shown or "none"
