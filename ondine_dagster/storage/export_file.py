"""A file that an export writes, whatever its format: whole, or not at all; and JSON in cells."""

from __future__ import annotations

from abc import abstractmethod
from math import isfinite
from typing import TYPE_CHECKING, Any

from ondine_dagster.storage.atomic import AbortedUnlessCommitted, AtomicFile
from ondine_dagster.storage.row_keys import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

_CELLS_AT_ONCE = 500_000


class ExportFile(AbortedUnlessCommitted):
    """A file in the making; as a context manager it is dropped unless committed."""

    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        self._file = file
        self._schema = schema

    @abstractmethod
    def write(self, rows: pa.Table) -> None:
        """Add rows."""

    def commit(self) -> None:
        """Make the file appear, durably."""
        self._file.commit()

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        self._file.abort()


def batches(rows: pa.Table) -> list[pa.RecordBatch]:
    """Return the rows in pieces whose cells fit into memory as Python's values."""
    most = max(1, _CELLS_AT_ONCE // max(1, rows.num_columns))
    found: list[pa.RecordBatch] = rows.to_batches(max_chunksize=most)
    return found


def json_text(value: Any) -> str:
    """Return a plain value, a list or a struct as JSON."""
    return canonical_json(finite(value))


def finite(value: Any) -> Any:
    """Return a value as JSON has it, which knows no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value
