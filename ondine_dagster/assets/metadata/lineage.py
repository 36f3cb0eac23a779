"""Which columns a column is made from, for Dagster's column lineage.

An output column is made from the answer, and through it from the columns that the prompt names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from ondine_dagster.assets.keys import asset_key
from ondine_dagster.assets.metadata.constraints import constraints_of
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.spec import SNAPSHOT_COLUMNS
from ondine_dagster.storage.lake import Lake

RAW, PROMPTS, MESSAGES, TEXT = "raw_rows", "prompts", "messages", "text"
LINEAGE, SCHEMA = "dagster/column_lineage", "dagster/column_schema"
_Made = Mapping[str, Sequence[tuple[str, str]]]  # column -> stages and their columns


def columns_of_prompt(pipeline: Pipeline, source: Sequence[str]) -> list[str]:
    """Return those columns of the source that the prompt is rendered from."""
    renderer = pipeline.renderer
    return [name for name in source if renderer.needs_whole_row or name in renderer.columns]


def columns_metadata(
    pipeline: Pipeline, asset: str, columns: Mapping[str, str], source: Sequence[str]
) -> dict[str, object]:
    """Return columns (name -> type) and their lineage; `source` are the source's columns."""
    described = declared_columns(pipeline) if asset == RESULTS else ()
    declared = {column.name: column for column in described}
    schema = dg.TableSchema(
        [
            dg.TableColumn(name, kind, known.description, known.constraints)
            if (known := declared.get(name)) is not None
            else dg.TableColumn(name, kind)
            for name, kind in columns.items()
        ]
    )
    made = _made_from(pipeline, asset, source)
    deps = {
        column: [dg.TableColumnDep(asset_key(pipeline.name, stage), name) for stage, name in origin]
        for column, origin in made.items()
        if origin and column in columns
    }
    return {SCHEMA: schema, LINEAGE: dg.TableColumnLineage(deps)}


def declared_columns(pipeline: Pipeline) -> list[dg.TableColumn]:
    """Return the output columns with what is declared of them, and so holds for their values."""
    fields = pipeline.dataset.output.fields_by_column()
    about = {name: field.description for name, field in fields.items()}
    return [
        dg.TableColumn(name, found.type, about.get(name), found.of_dagster())
        for name, found in constraints_of(pipeline.dataset).items()
    ]


def written_columns(
    pipeline: Pipeline, lake: Lake, asset: str, partition: str
) -> dict[str, object]:
    """Return columns and lineage of a partition of `raw_rows` or `prompts` from its files."""
    source = [one.name for one in lake.schema(pipeline.name, RAW, partition)]
    columns = {one.name: str(one.type) for one in lake.schema(pipeline.name, asset, partition)}
    return columns_metadata(
        pipeline, asset, columns, [name for name in source if name not in SNAPSHOT_COLUMNS]
    )


def _made_from(pipeline: Pipeline, asset: str, source: Sequence[str]) -> _Made:
    rendered = columns_of_prompt(pipeline, source)
    if asset == RAW:
        return _same("snapshot", source)
    if asset == PROMPTS:
        return {MESSAGES: [(RAW, name) for name in rendered]}
    if asset == RESPONSES:
        return {TEXT: [(PROMPTS, MESSAGES)]}
    answer = [(RESPONSES, TEXT), *((RAW, name) for name in rendered)]
    made = {
        RESULTS: dict.fromkeys(pipeline.dataset.output_columns(), answer),
        REJECTED: {"_raw_text": answer},
    }
    return {**_same(RAW, source), **made[asset]}


def _same(stage: str, columns: Iterable[str]) -> _Made:
    return {name: [(stage, name)] for name in columns}
