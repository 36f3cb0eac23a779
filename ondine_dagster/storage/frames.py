"""Tables as people hold them: pandas, Polars, Arrow and DuckDB, from files and back.

Owns the types that a loaded DataFrame has: nullable ones for whole numbers, truth values and text,
so that a column has the same type with and without NULL in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.headers import distinct
from ondine_dagster.storage.lake import from_arrow, scan_files
from ondine_dagster.storage.parquet_files import read_metadata, read_schema, read_table
from ondine_dagster.storage.sealed_texts import SEALED_NOTE

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_ACCEPTED = "pandas.DataFrame, polars.DataFrame, pyarrow.Table and duckdb.DuckDBPyRelation"
# Noted in the files of people's own tables, whose order is theirs.
OWN_ORDER = "ondine.order"


def load_as(annotation: Any, files: Sequence[Path]) -> Any:
    """Return the files as one table of the annotated type, in their order.

    Rows of our own assets are in input order within each file.

    Raises:
        OndineError: the annotation is none of the known types, or the files' types differ.
    """
    return _loader(annotation)(files)


def to_arrow(table: Any, owner: str) -> pa.Table:
    """Return what an asset returned as an Arrow table; a named index of pandas is kept.

    Raises:
        OndineError: it is none of the known types, or cannot be stored.
    """
    import duckdb
    import pandas as pd
    import pyarrow as pa

    try:
        if isinstance(table, pa.Table):
            return table
        if isinstance(table, pd.DataFrame):
            return pa.Table.from_pandas(table)
        if isinstance(table, duckdb.DuckDBPyRelation):
            return table.to_arrow_table()
        if is_polars(table):
            return table.to_arrow()
    except (UnicodeEncodeError, pa.ArrowException) as error:
        raise OndineError(
            f"What {owner} returned cannot be stored: {error}. Every column needs values of one "
            f"type, and texts without lone surrogates."
        ) from error
    raise OndineError(
        f"{owner} returned {type(table).__name__}, which cannot be stored. Return one of "
        f"{_ACCEPTED}, or annotate the asset with -> None if it stores its data itself."
    )


def _loader(annotation: Any) -> Callable[[Sequence[Path]], Any]:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    if annotation in (Any, object, None, type(None), pd.DataFrame):
        return _as_pandas
    if annotation is pa.Table:
        return _as_arrow
    if annotation is duckdb.DuckDBPyRelation:
        return _as_relation
    if _is_frame_of_polars(annotation):
        return _as_polars
    raise OndineError(
        f"it is annotated as {getattr(annotation, '__name__', annotation)}, which cannot be "
        f"loaded. Known types: {_ACCEPTED}."
    )


def as_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a DataFrame with nullable types."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_pandas_type)
    return frame


def is_polars(data: Any) -> bool:
    """Return whether `data` is a DataFrame of Polars, which need not be installed."""
    return _is_frame_of_polars(type(data))


def _is_frame_of_polars(kind: Any) -> bool:
    module, name = getattr(kind, "__module__", ""), getattr(kind, "__name__", "")
    return module.partition(".")[0] == "polars" and name == "DataFrame"


def from_frame(data: Any) -> pa.Table:
    """Return the rows of a DataFrame (pandas or Polars) or an Arrow table.

    An index of pandas becomes a column where it has a name and there is no such column.

    Raises:
        OndineError: it is none of these, or a column has values of several types, or of none that
            a file keeps.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        if isinstance(data, pa.Table):
            return data
        if isinstance(data, pd.DataFrame):
            distinct([str(name) for name in data.columns], "The DataFrame")
            plain = _plain(data)
            return pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata(None)
        if is_polars(data):
            for name, kind in data.schema.items():
                if str(kind) == "Object":  # Arrow would be given addresses of memory
                    raise TypeError(f"column {name!r} holds Python objects")
            return data.to_arrow()
    except (UnicodeEncodeError, TypeError, pa.ArrowException) as error:
        raise OndineError(
            f"The table cannot be stored: {str(error).rstrip('.')}. Every column needs values of "
            "one type, and texts without lone surrogates."
        ) from error
    raise OndineError(
        f"{type(data).__name__} is no table. Known: pandas.DataFrame, polars.DataFrame, "
        "pyarrow.Table, or the path of a file."
    )


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its named index as columns, and periods as text (2026-05)."""
    import pandas as pd

    named = [one for one in frame.index.names if one is not None and one not in frame.columns]
    found = frame.reset_index(level=named) if named else frame
    kinds = found.dtypes.items()
    periods = {name: "string" for name, kind in kinds if isinstance(kind, pd.PeriodDtype)}
    return found.astype(periods) if periods else found


def _as_pandas(files: Sequence[Path]) -> pd.DataFrame:
    return as_pandas(_as_arrow(files))


def _as_polars(files: Sequence[Path]) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(_as_arrow(files))


def _as_arrow(files: Sequence[Path]) -> pa.Table:
    import pyarrow as pa

    tables = [_in_input_order(file, read_table(file)) for file in files]
    try:
        return _without_notes(pa.concat_tables(tables, promote_options="permissive"))
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise OndineError(
            f"the partitions do not have the same types: {error}. Materialize the older ones again."
        ) from error


def _without_notes(table: pa.Table) -> pa.Table:
    """Return the table without what the writer of its first file noted, but for pandas' index."""
    notes = table.schema.metadata or {}
    return table.replace_schema_metadata({k: v for k, v in notes.items() if k == b"pandas"})


def _in_input_order(file: Path, table: pa.Table) -> pa.Table:
    return table.sort_by("_position") if _has_input_order(file) else table


def _has_input_order(file: Path) -> bool:
    return OWN_ORDER not in read_metadata(file) and "_position" in read_schema(file).names


def _as_relation(files: Sequence[Path]) -> duckdb.DuckDBPyRelation:
    if any(SEALED_NOTE in read_metadata(file) for file in files):
        return from_arrow(_as_arrow(files))
    relation = scan_files(files)
    if all(_has_input_order(file) for file in files):
        return relation.order("file_index, _position")
    return relation


def _pandas_type(kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return pd.api.types.pandas_dtype(str(kind).replace("uint", "UInt").replace("int", "Int"))
    if pa.types.is_boolean(kind):
        return pd.BooleanDtype()
    return pd.StringDtype("pyarrow") if pa.types.is_string(kind) else None
