"""What is shown of a partition beside its counts: latency, where costs come from, first rows.

All is taken from tables that are written anyway, so that it costs nothing per row. Imported only
where a stage runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa  # noqa: TID253 (this module is imported lazily)
import pyarrow.compute as pc  # noqa: TID253

from ondine_dagster.assets.metadata.lineage import columns_of_prompt
from ondine_dagster.assets.rows.redaction import shown
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESULTS, PartitionCounts
from ondine_dagster.assets.shared.pipeline import Pipeline

_ROWS = 5
_SOURCE_COLUMNS, _OUTPUT_COLUMNS = 4, 8  # shown at most: events are kept for ever
_PROBLEM = ("_error_code", "_error_message", "_raw_text")


class Figures:
    """Collects what is shown of one partition while its files are written."""

    def __init__(self, pipeline: Pipeline, source: Sequence[str]) -> None:
        """`source` are the columns of the source."""
        key = [name for name in source if name in pipeline.dataset.source.key]
        named = [name for name in columns_of_prompt(pipeline, source) if name not in key]
        outputs = pipeline.dataset.output_columns()[:_OUTPUT_COLUMNS]
        rows = named[:_SOURCE_COLUMNS]
        # what matters first: Dagster cuts wide tables off
        self._shown = {RESULTS: [*key, *outputs, *rows], REJECTED: [*key, *_PROBLEM, *rows]}
        self._scrub = pipeline.scrub
        self._preview: dict[str, list[dict[str, Any]]] = {RESULTS: [], REJECTED: []}
        self._latencies: list[pa.ChunkedArray] = []
        self._sources: list[pa.ChunkedArray] = []
        self._models: list[pa.ChunkedArray] = []

    def responses(self, rows: pa.Table) -> None:
        """Take in rows of `responses`."""
        self._latencies.append(rows.column("latency_ms"))
        self._sources.append(rows.column("cost_source"))
        self._models.append(rows.column("model_served"))

    def rows(self, asset: str, rows: pa.Table) -> None:
        """Keep the first rows of `results` or `rejected_rows`."""
        kept = self._preview[asset]
        if (room := _ROWS - len(kept)) > 0:
            kept += rows.slice(0, room).select(self._shown[asset]).to_pylist()

    def note(self, counts: PartitionCounts) -> None:
        """Write what was collected into `counts`."""
        counts.preview = {
            asset: [shown(self._scrub, row) for row in rows]
            for asset, rows in self._preview.items()
            if rows
        }
        if not self._latencies:
            return
        latencies = pa.chunked_array([piece for one in self._latencies for piece in one.chunks])
        half, most = pc.quantile(latencies, [0.5, 0.95]).to_pylist()
        counts.latency_p50, counts.latency_p95 = half, most
        counts.cost_sources = _counted(self._sources)
        counts.models = _counted(self._models)


def _counted(columns: Sequence[pa.ChunkedArray]) -> Counter[str]:
    """Count the values that there are."""
    values = pa.chunked_array([piece for one in columns for piece in one.chunks])
    pairs = pc.value_counts(values.drop_null()).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})
