"""What a source is once it was found: files of this machine, or rows from elsewhere.

Owns the interface of rows from elsewhere, which every kind of source but files implements.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.partitioning import FileRows

if TYPE_CHECKING:
    import pyarrow as pa


class NotWatchable(OndineError):
    """The source cannot say whether it changed without being read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a source as the watch sensor sees it: it changed when name or state did.

    `size` is in bytes, 0 where that is not known.
    """

    name: str
    state: str
    size: int

    @classmethod
    def of_file(cls, path: Path) -> Piece:
        """Return a file as it is now; raises OSError where it is gone."""
        status = path.stat()
        return cls(str(path), f"{status.st_size}\0{status.st_mtime_ns}", status.st_size)


class Elsewhere(Protocol):
    """Rows that are in no file of this machine. Making one asks nobody yet."""

    @property
    def shown(self) -> str:
        """What people call the source, in messages and metadata; no secrets."""

    def columns(self) -> list[str]:
        """Return the names of the columns; raises OndineError."""

    def read(self) -> tuple[pa.Table, list[FileRows]]:
        """Return all rows, in an order that is the same as long as they are; raises OndineError."""

    def pieces(self) -> list[Piece]:
        """Return what changes when the rows do; raises NotWatchable, or OndineError."""


# A file, or the pattern of several, as in `source_files`.
Located = Path | Elsewhere
