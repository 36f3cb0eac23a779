"""What Dagster shows of a stage: metadata, version tags, refusals that read well."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from ondine_dagster.assets.partition_counts import REJECTED, RESPONSES, PartitionCounts
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prices import usd

Metadata = dict[str, Any]
# Dagster's own tag names: https://docs.dagster.io/guides/build/assets/asset-versioning-and-caching
CODE_VERSION, DATA_VERSION = "dagster/code_version", "dagster/data_version"


@contextmanager
def readable_failures() -> Iterator[None]:
    """Turn an error that a person can fix into a Dagster failure with just its sentence."""
    try:
        yield
    except OndineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def partition_metadata(asset: str, counts: PartitionCounts) -> Metadata:
    """Return the metadata of one asset's partition; numbers are plotted over partitions."""
    rows = {RESPONSES: counts.rows, REJECTED: counts.rejected}.get(asset, counts.results)
    columns = [dg.TableColumn(name, kind) for name, kind in counts.columns[asset].items()]
    metadata: Metadata = {
        "dagster/partition_row_count": rows,
        "dagster/column_schema": dg.TableSchema(columns),
    }
    if asset == RESPONSES:
        metadata |= {
            "cost_usd": dollars(counts.cost),
            "unknown_usd": dollars(counts.unknown_cost),
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "requests": counts.requests,
            "retries": counts.retries,
            "rows_reused": counts.reused,
            **{f"rows_{name}": count for name, count in sorted(counts.outcomes.items())},
        }
    elif asset == REJECTED and counts.codes:
        metadata["reasons"] = dg.MetadataValue.md(reasons_table(counts))
    return metadata


def dollars(picodollars: int) -> float:
    """Return money for a chart: a plotted point need not be exact, stored money is."""
    return float(usd(picodollars))


def reasons_table(counts: PartitionCounts) -> str:
    """Return a markdown table of why rows were rejected, with the first message of each."""
    lines = ["| code | rows | for example |", "|---|---|---|"]
    for code, count in counts.codes.most_common():
        example = counts.messages[code].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {code} | {count} | {example} |")
    return "\n".join(lines)


def version_tags(code_version: str, data_version: str) -> Mapping[str, str]:
    """Return the tags that let Dagster show staleness per partition."""
    return {CODE_VERSION: code_version, DATA_VERSION: data_version}
