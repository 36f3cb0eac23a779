"""Finds the source that a dataset declares, whatever kind it is, and reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.spec import Dataset
from ondine_dagster.spec.file_places import is_address
from ondine_dagster.storage import source_files
from ondine_dagster.storage.frame_source import FrameSource
from ondine_dagster.storage.located import Located, Piece
from ondine_dagster.storage.object_store import StoreFiles
from ondine_dagster.storage.partitioning import FileRows
from ondine_dagster.storage.query_source import locate_query

if TYPE_CHECKING:
    import pyarrow as pa


def locate(
    dataset: Dataset,
    declared_in: Path,
    project_root: Path,
    environ: Callable[[], Mapping[str, str]],
) -> Located:
    """Return where the rows are. Relative paths: beside the YAML file first, then in the project.

    Raises:
        SourceNotFound: no such file; lists what was tried.
        OndineError: the environment does not hold what the declaration takes from it.
    """
    pattern, frame = dataset.source_pattern, dataset.source.dataframe
    if pattern is not None and is_address(pattern):
        return StoreFiles(dataset, pattern)
    if pattern is not None:
        return source_files.resolve_source(dataset, declared_in, project_root)
    if frame is not None:
        return FrameSource(frame)
    return locate_query(dataset.source, declared_in, project_root, environ())


def columns_of(dataset: Dataset, found: Located) -> list[str]:
    """Return the column names of a source; raises OndineError as `read_rows` does."""
    if isinstance(found, Path):
        return source_files.columns_of(dataset, found)
    return found.columns()


def read_rows(dataset: Dataset, found: Located) -> tuple[pa.Table, list[FileRows]]:
    """Return all rows of a source, and how many each of its files has.

    Raises:
        OndineError: it cannot be read without loss.
    """
    if isinstance(found, Path):
        return source_files.read_rows(dataset, found)
    return found.read()


def pieces_of(dataset: Dataset, found: Located) -> list[Piece]:
    """Return the source as the watch sensor sees it; raises NotWatchable, or OndineError."""
    if not isinstance(found, Path):
        return found.pieces()
    pieces = []
    for file in source_files.source_files(dataset, found):
        try:
            pieces.append(Piece.of_file(file.path))
        except OSError:
            continue  # gone meanwhile
    return pieces


def shown(found: Located) -> str:
    """Return what people call the source: a path, or a database without its password."""
    return str(found.absolute()) if isinstance(found, Path) else found.shown
