"""Names of assets and what all of their specs have in common."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from ondine_dagster.assets.resources import IO_MANAGER
from ondine_dagster.assets.shared.partition_counts import RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline


def asset_key(dataset: str, asset: str) -> dg.AssetKey:
    """Return `<dataset>/<asset>`."""
    return dg.AssetKey([dataset, asset])


def upstream_key(pipeline: Pipeline) -> dg.AssetKey | None:
    """Return the asset that the source is; None where the rows come from elsewhere."""
    source = pipeline.dataset.source
    if source.dataset is not None:
        return asset_key(source.dataset, RESULTS)
    return dg.AssetKey(source.asset.split("/")) if source.asset is not None else None


def last_assets(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the assets that are made of all partitions, when these are done."""
    return ("report", "export") if pipeline.dataset.export else ("report",)


def asset_spec(
    pipeline: Pipeline,
    asset: str,
    description: str,
    *,
    kinds: set[str],
    deps: Sequence[str] = (),
    upstream: Sequence[dg.AssetKey] = (),
    code_version: str | None = None,
    skippable: bool = False,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    metadata: dict[str, object] | None = None,
) -> dg.AssetSpec:
    """Return the spec of one stage.

    `deps` are stages of the same dataset, `upstream` assets of others.
    """
    dataset = pipeline.dataset
    about = f"\n\n{dataset.description}" if dataset.description else ""
    spec = dg.AssetSpec(
        key=asset_key(pipeline.name, asset),
        deps=[*(asset_key(pipeline.name, dep) for dep in deps), *upstream],
        description=description + about,
        group_name=pipeline.name,
        kinds=kinds,
        owners=list(dataset.owners),
        code_version=code_version,
        skippable=skippable,
        automation_condition=automation_condition,
        metadata=metadata,
    )
    # people's own assets load these through the IO manager; ours read the lake
    return spec.with_io_manager_key(IO_MANAGER)
