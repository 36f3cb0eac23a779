"""A source that is a DataFrame of Python: pandas, Polars or Arrow, or what a function returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ondine_dagster.storage.frames import from_frame
from ondine_dagster.storage.headers import distinct
from ondine_dagster.storage.located import NotWatchable, Piece
from ondine_dagster.storage.partitioning import FileRows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class FrameSource:
    """The rows of what `frame` returns, in their order. It is called when they are read."""

    frame: Callable[[], Any]

    @property
    def shown(self) -> str:
        """What messages call it."""
        return "source.dataframe"

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError as `read` does."""
        return list(self.read()[0].column_names)

    def read(self) -> tuple[pa.Table, list[FileRows]]:
        """Return all rows; raises OndineError where it is no table, or one that cannot be kept."""
        found = self.frame()
        if type(found).__name__ == "LazyFrame":  # of Polars, which need not be installed
            found = found.collect()
        table = from_frame(found)
        distinct(table.column_names, self.shown)
        return table, [FileRows(self.shown, self.shown, table.num_rows)]

    def pieces(self) -> list[Piece]:
        """Raise NotWatchable: a frame tells nothing."""
        raise NotWatchable(
            "A DataFrame does not tell when it changes, so nothing is run. Use a schedule, or "
            "materialize the snapshot."
        )
