"""Rows that fit no partition: `snapshot` rejects them with the reason, outside of all partitions.

They stand in the file `rejected_rows/_unassigned` of the lake, with the columns of other rejected
rows; `Snapshot.unassigned_rows` counts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ondine_dagster.assets.rows.redaction import at_rest
from ondine_dagster.assets.shared.partition_counts import REJECTED
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import to_table
from ondine_dagster.storage.partitioning import UNASSIGNED
from ondine_dagster.storage.snapshot import Snapshot, rows_of

_SHOWN_REASONS = 3


def write_unassigned(
    pipeline: Pipeline, lake: Lake, snapshot: Snapshot, reasons: Mapping[str, str]
) -> None:
    """Write the rows of `snapshot` that fit no partition; without any, remove the file.

    `reasons` say why, by the key of the row.
    """
    from ondine_dagster.assets.shared import tables

    if not snapshot.unassigned_rows:
        lake.delete(snapshot.dataset, REJECTED, UNASSIGNED)
        return
    rows = rows_of(snapshot, UNASSIGNED)
    source = [field for field in rows.schema if field.name in snapshot.source_columns]
    schema = tables.rejected_schema(source)
    count = rows.num_rows
    columns = {
        **{name: [None] * count for name in schema.names},
        **{name: rows.column(name) for name in rows.column_names},
        "_error_class": [ErrorClass.ROW] * count,
        "_error_code": [ErrorCode.NO_PARTITION] * count,
        "_error_message": [reasons[key] for key in rows.column("_row_key").to_pylist()],
        "_outcome": ["error"] * count,
        "_attempts": [0] * count,
    }
    rows_at_rest = at_rest(pipeline, to_table(columns, schema))
    lake.write(snapshot.dataset, REJECTED, UNASSIGNED, rows_at_rest)


def described(reasons: Mapping[str, str]) -> str:
    """Return the most frequent reasons with their numbers of rows, as the end of a sentence."""
    counts = Counter(reasons.values())
    shown = (f"{count:,} rows: {reason}" for reason, count in counts.most_common(_SHOWN_REASONS))
    return "; ".join(shown) + ("; ..." if len(counts) > _SHOWN_REASONS else "")
