"""`raw_rows`: the partition's slice of the current snapshot, all source columns."""

from hashlib import sha256

import dagster as dg

from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.metadata.lineage import RAW, written_columns
from ondine_dagster.assets.resources import LAKE, LakeResource
from ondine_dagster.assets.shared.events import ROW_COUNT
from ondine_dagster.assets.shared.partitions import event_key, may_be_empty, step_keys
from ondine_dagster.assets.shared.pipeline import LAYOUT, Pipeline
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import Snapshot, SnapshotRows, empty_partition, rows_of

_DESCRIPTION = "The rows of one partition of the snapshot, with all of their source columns."


def build_raw_rows(
    pipeline: Pipeline, partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetsDefinition:
    """Return the `raw_rows` asset."""

    @dg.multi_asset(
        name=f"{pipeline.name}__raw_rows",
        specs=[
            asset_spec(
                pipeline,
                "raw_rows",
                _DESCRIPTION,
                kinds={"parquet"},
                deps=["snapshot"],
                code_version=str(LAYOUT),  # without one, each run would make what follows stale
            )
        ],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(pipeline.dataset.run_partitions),
        required_resource_keys={LAKE},
    )
    def raw_rows(context: dg.AssetExecutionContext) -> None:
        resource: LakeResource = context.resources.ondine_lake
        with stage(context, pipeline):
            lake = resource.lake()
            snapshot = pipeline.snapshot(lake)  # pinned: one snapshot for the whole step
            with SnapshotRows(snapshot) as source:
                for partition in step_keys(context):
                    if not may_be_empty(pipeline):
                        refuse_stranger(snapshot, partition)
                    rows = write_raw_rows(lake, snapshot, partition, source)
                    columns = written_columns(pipeline, lake, RAW, partition)
                    context.add_asset_metadata(
                        {ROW_COUNT: rows, **columns}, partition_key=event_key(pipeline, partition)
                    )

    return raw_rows


def refuse_stranger(snapshot: Snapshot, partition: str) -> None:
    """Refuse a partition that the snapshot does not have: raises OndineError."""
    if partition not in snapshot.by_key:
        raise OndineError(
            f"Dataset {snapshot.dataset} has no partition {partition} in its current snapshot of "
            f"{snapshot.taken_at:%Y-%m-%d %H:%M} UTC: its rows are gone from the source, or the "
            "snapshot is older than the partition. Materialize the snapshot again."
        )


def write_raw_rows(
    lake: Lake, snapshot: Snapshot, partition: str, source: SnapshotRows | None = None
) -> int:
    """Write the partition's slice of `snapshot`; returns its number of rows.

    It may have none, as a window of time in which none fell. `source` are the snapshot's rows,
    where they are open already.
    """
    found = snapshot.by_key.get(partition) or empty_partition(snapshot, partition)
    rows = source.at(partition) if source else rows_of(snapshot, partition)
    keys = "\0".join(rows.column("_row_key").to_pylist())
    lake.write(
        snapshot.dataset,
        "raw_rows",
        partition,
        rows,
        {
            "ondine.snapshot": snapshot.version,
            "ondine.content_hash": found.content_hash,
            # the content hash does not depend on the order; matching rows by place does
            "ondine.order": sha256(f"{found.content_hash}\0{keys}".encode()).hexdigest(),
        },
    )
    return int(rows.num_rows)
