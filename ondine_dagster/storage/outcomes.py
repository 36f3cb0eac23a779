"""What became of every row of the current snapshot, in input order, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import Snapshot
from ondine_dagster.storage.snapshot_file import read_columns

if TYPE_CHECKING:
    import pyarrow as pa

_ENDS = ("results", "rejected_rows")


def outcomes(lake: Lake, snapshot: Snapshot, columns: Sequence[str]) -> pa.Table:
    """Return `columns` of `results` and `rejected_rows`, one row for each row of the snapshot.

    NULL where a row has no outcome yet, or its file has no such column. A column that is in no file
    is NULL throughout.
    """
    import pyarrow as pa

    names = read_columns(snapshot, ["_partition", "_row_key", "_position"])
    keys, rows, positions = (column.to_pylist() for column in names)
    found, places = [pa.table({name: pa.nulls(0) for name in columns})], {}
    count = 0
    for partition in dict.fromkeys(keys):
        for asset in _ENDS:
            if lake.exists(snapshot.dataset, asset, partition):
                there = lake.schema(snapshot.dataset, asset, partition).names
                wanted = [name for name in columns if name in there]
                read = list(dict.fromkeys(["_row_key", *wanted]))
                table = lake.read(snapshot.dataset, asset, partition, read, shown=True)
                for place, row in enumerate(table["_row_key"].to_pylist(), start=count):
                    places[partition, row] = place
                count += table.num_rows
                found.append(table.select(wanted))
    taken: list[int | None] = [None] * len(rows)
    for key, row, position in zip(keys, rows, positions, strict=True):
        taken[position] = places.get((key, row))
    together = pa.concat_tables(found, promote_options="permissive")
    return together.take(pa.array(taken, pa.int64()))
