"""Builds the Dagster definitions of one dataset from its declaration."""

from pathlib import Path

import dagster as dg

from ondine_dagster.assets.automation.automation import build_automation
from ondine_dagster.assets.export import build_export
from ondine_dagster.assets.prompts import build_prompts
from ondine_dagster.assets.raw_rows import build_raw_rows
from ondine_dagster.assets.report import build_report
from ondine_dagster.assets.resources import resources
from ondine_dagster.assets.responses import build_responses
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.assets.shared.partitions import partitions_def
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.snapshot import build_snapshot
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset


def build_definitions(
    dataset: Dataset, *, declared_in: Path, project_root: Path, loads_asset: bool = True
) -> dg.Definitions:
    """Return the assets of `dataset`, what runs them by itself, and the resources they need.

    `loads_asset`: an upstream asset is loaded through its IO manager; see `build_snapshot`.

    Raises OndineError where nobody knows the model's price, and where the declaration does not fit
    the source's columns; a source that cannot be read yet is checked by `snapshot`, before money is
    spent.
    """
    pipeline = Pipeline(dataset, declared_in, project_root)
    pipeline.check_price()
    _check_columns(pipeline)
    stages = build_assets(pipeline, loads_asset=loads_asset)
    assets = dg.Definitions(assets=stages, resources=resources(project_root))
    return dg.Definitions.merge(assets, build_automation(pipeline))


def build_assets(pipeline: Pipeline, *, loads_asset: bool = True) -> list[dg.AssetsDefinition]:
    """Return the assets, in the order the data flows."""
    partitions = partitions_def(pipeline)
    stages = [
        build_snapshot(pipeline, loads_asset=loads_asset),
        build_raw_rows(pipeline, partitions),
        build_prompts(pipeline, partitions),
        build_responses(pipeline, partitions),
    ]
    checks = [spec for stage in stages for spec in stage.check_specs]
    last = [build_export(pipeline)] if pipeline.dataset.export else []
    return [*stages, build_report(pipeline, checks), *last]


def _check_columns(pipeline: Pipeline) -> None:
    if not pipeline.dataset.is_in_files:
        return  # a server may be slow, and definitions are loaded often: `snapshot` checks
    try:
        columns = pipeline.source_columns()
    except OndineError:
        return  # not there or not readable yet: `snapshot` says so, with the reason
    check_source_columns(pipeline, columns)
