"""What Dagster shows of a partition: numbers that it plots, first rows, columns and lineage."""

import dagster as dg

from ondine_dagster.assets.metadata.lineage import columns_metadata
from ondine_dagster.assets.shared import markdown
from ondine_dagster.assets.shared.events import ROW_COUNT, Metadata, dollars
from ondine_dagster.assets.shared.partition_counts import (
    REJECTED,
    RESPONSES,
    RESULTS,
    PartitionCounts,
)
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.capabilities import capabilities_of
from ondine_dagster.wording import counted

_SHOWN_MODELS = 10


def partition_metadata(pipeline: Pipeline, asset: str, counts: PartitionCounts) -> Metadata:
    """Return the metadata of one asset's partition; numbers are plotted over partitions."""
    rows = {RESPONSES: counts.rows, REJECTED: counts.rejected}.get(asset, counts.results)
    metadata: Metadata = {
        ROW_COUNT: rows,
        **columns_metadata(pipeline, asset, counts.columns[asset], counts.source_columns),
    }
    if asset == RESPONSES:
        metadata |= _numbers(counts)
        if pipeline.packing is not None:
            metadata["rows_repaired"] = counts.repaired
            metadata |= {f"rows_{flag}": rows for flag, rows in sorted(counts.damages.items())}
            if counts.requests:
                metadata["rows_per_request"] = round(counts.carried / counts.requests, 2)
        if counts.models:
            metadata["models_served"] = counted(counts.models, _SHOWN_MODELS)
        if pipeline.dataset.output.fields:
            metadata["structured_output"] = capabilities_of(pipeline.dataset.llm).structured
    elif asset == RESULTS:
        metadata |= {f"rows_{flag}": rows for flag, rows in sorted(counts.repairs.items())}
    elif asset == REJECTED:
        metadata["rejected_share"] = _share(counts.rejected, counts.rows)
        if counts.codes:
            metadata["reasons"] = dg.MetadataValue.md(reasons_table(counts))
    if counts.preview.get(asset):
        metadata["preview"] = dg.MetadataValue.md(markdown.preview(counts.preview[asset]))
    return metadata


def _numbers(counts: PartitionCounts) -> Metadata:
    """Return what the answers of a partition came to. docs/report.md says what each name means."""
    numbers: Metadata = {
        "cost_usd": dollars(counts.cost),
        "unknown_usd": dollars(counts.unknown_cost),
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "cached_tokens": counts.cached_tokens,
        "requests": counts.requests,
        "retries": counts.retries,
        "throttled_seconds": round(counts.throttled_seconds, 3),
        "paused_seconds": round(counts.paused_seconds, 3),
        "rows_reused": counts.reused,
        "reused_share": _share(counts.reused, counts.rows),
        **{f"rows_{outcome}": counts.outcomes[outcome] for outcome in Outcome},
        **{f"rows_cost_{name}": rows for name, rows in sorted(counts.cost_sources.items())},
    }
    if counts.reasked:
        numbers["rows_reasked"] = counts.reasked
    if counts.asked:
        numbers["cost_per_row_usd"] = dollars(counts.cost) / counts.asked
    if counts.latency_p50 is not None and counts.latency_p95 is not None:
        numbers["latency_p50_ms"] = round(counts.latency_p50, 1)
        numbers["latency_p95_ms"] = round(counts.latency_p95, 1)
    if counts.rows_per_second is not None:
        numbers["rows_per_second"] = round(counts.rows_per_second, 1)
    return numbers


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def reasons_table(counts: PartitionCounts) -> str:
    """Return a markdown table of why rows were rejected, with the first message of each."""
    rows = ((code, count, counts.messages[code]) for code, count in counts.codes.most_common())
    return markdown.table(["code", "rows", "for example"], rows, right={1})
