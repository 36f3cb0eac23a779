"""The table of an upstream asset as a source: kept as it was loaded last.

Only Dagster can load it, through the IO manager of its code location. What it brought is kept with
the data, so that the command line works on the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import ensure_folder
from ondine_dagster.storage.frames import from_frame
from ondine_dagster.storage.layout import SUFFIX, quoted
from ondine_dagster.storage.parquet_files import write_table

_FOLDER = "asset_sources"


def asset_table_file(data_dir: Path, dataset: str, asset: str) -> Path:
    """Return where the table of `asset` is kept for `dataset`."""
    return data_dir / _FOLDER / dataset / f"{quoted(asset)}{SUFFIX}"


def keep_asset_table(file: Path, loaded: Any, asset: str) -> None:
    """Keep what an IO manager has loaded: a table, or the tables of its partitions by key.

    Raises:
        OndineError: it is no table, or the partitions have different columns.
    """
    import pyarrow as pa

    parts = loaded if isinstance(loaded, Mapping) else {"": loaded}
    try:
        tables = [from_frame(parts[key]) for key in sorted(parts)]
        together = pa.concat_tables(tables, promote_options="permissive") if tables else None
    except OndineError as error:
        raise OndineError(f"source.asset: {asset}: {error}") from None
    except pa.ArrowException as error:
        raise OndineError(
            f"source.asset: the partitions of {asset} have different columns: {error}."
        ) from None
    if together is None:
        raise OndineError(f"source.asset: {asset} has no partition with a table. Materialize it.")
    ensure_folder(file.parent)
    write_table(file, together)
