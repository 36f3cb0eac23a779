"""The files of a source that is a pattern: which there are, and their rows as one table.

Owns the order (by path) and the promise that all files have the same columns: one that differs is
refused by name. One file, declared by `source.path`, is a pattern that matches itself.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.file_names import FileNames
from ondine_dagster.spec.file_places import files_in, is_pattern
from ondine_dagster.spec.source_formats import file_format
from ondine_dagster.storage.dataset_source import read_results, result_columns, result_files
from ondine_dagster.storage.headers import distinct
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.partitioning import FileRows
from ondine_dagster.storage.sources import (
    SourceNotFound,
    places,
    read_source,
    resolve_path,
    source_columns,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec import Dataset

_SHOWN_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file; `name` and `below` as in `FileRows`."""

    path: Path
    name: str
    below: str


def resolve_source(dataset: Dataset, declared_in: Path, project_root: Path) -> Path:
    """Return the absolute path of the source: of its file, or of its pattern.

    Both are looked up beside the YAML file first, then in the project root.

    Raises:
        SourceNotFound: no such file; lists what was tried.
    """
    pattern = dataset.source_pattern
    assert pattern is not None, "asked for the file of a source without one"
    setting = "partitions" if dataset.partitions.file_pattern else "source.path"
    if setting == "source.path" and not is_pattern(pattern):
        return resolve_path(pattern, declared_in, project_root)
    tried = places(pattern, declared_in, project_root)
    found = next((candidate for candidate in tried if source_files(dataset, candidate)), None)
    if found is None:
        raise SourceNotFound(
            f"{setting}: no file matches {pattern!r}. Tried: {', '.join(map(str, tried))}. "
            f"Correct the pattern in {declared_in}, or put the files there."
        )
    return found


def source_files(dataset: Dataset, path: Path) -> list[SourceFile]:
    """Return the files of a source by path; none where nothing matches its pattern.

    Where the source is another dataset, they are the files that change with its results.

    Args:
        dataset: declares the source.
        path: what `resolve_source` returned.
    """
    if dataset.source.dataset is not None:
        found = result_files(Lake(path.parent), path.name)
        return [SourceFile(one, one.name, one.name) for one in found]
    pattern = dataset.source_pattern
    is_declared_one = dataset.partitions.file_pattern is None
    if pattern is None or (is_declared_one and (not is_pattern(pattern) or path.is_file())):
        return [SourceFile(path, path.name, path.name)]
    inside = PurePosixPath(pattern)
    parts = inside.relative_to("/").parts if inside.is_absolute() else inside.parts
    base = Path(*path.parts[: -len(parts)])
    inner = files_in("/".join(parts) + ("/" if pattern.endswith("/") else ""))
    by_time = dataset.partitions.time is not None
    searched = FileNames(inner).glob if by_time else inner
    # hidden files are left out: tools write them first and rename them when they are whole
    names = sorted(glob.glob(searched, root_dir=base, recursive=True))
    fixed = fixed_folder(searched)
    return [
        SourceFile(base / name, name, name.removeprefix(fixed))
        for name in names
        if (base / name).is_file() and file_format(name) is not None
    ]


def digests(dataset: Dataset, path: Path) -> dict[str, str]:
    """Return the sha256 (hex) of each file of a source, by its name. Files that are gone have none.

    `path` is what `resolve_source` returned.
    """
    found = {}
    for one in source_files(dataset, path):
        with suppress(OSError), open(one.path, "rb") as file:
            found[one.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fixed_folder(searched: str) -> str:
    """Return the folders at the start of a pattern that have no wildcards, with a slash."""
    folders = []
    for part in searched.split("/")[:-1]:
        if glob.has_magic(part):
            break
        folders.append(part)
    return "".join(f"{folder}/" for folder in folders)


def columns_of(dataset: Dataset, path: Path) -> list[str]:
    """Return the column names of a source from the header of its first file.

    Raises:
        OndineError: there is no file, or its header is missing or unreadable.
    """
    if dataset.source.dataset is not None:
        return result_columns(Lake(path.parent), path.name, dataset.reserved_columns())
    return columns_of_files(dataset, _some_files(dataset, path))


def columns_of_files(dataset: Dataset, files: Sequence[SourceFile]) -> list[str]:
    """Return the column names in the header of the first file, and those that are added."""
    columns = source_columns(dataset.source, files[0].path)
    added = dataset.source.file_column
    return columns if added is None else distinct([*columns, added], files[0].path)


def read_rows(dataset: Dataset, path: Path) -> tuple[pa.Table, list[FileRows]]:
    """Return all rows of a source, file by file, and how many each file has.

    Those of another dataset have their `_row_key` as a column.

    Raises:
        OndineError: a file cannot be read without loss, or differs from the others in its columns.
    """
    if dataset.source.dataset is not None:
        table = read_results(Lake(path.parent), path.name, dataset.reserved_columns())
        return table, [FileRows(path.name, path.name, table.num_rows)]
    return read_files(dataset, _some_files(dataset, path))


def read_files(dataset: Dataset, files: Sequence[SourceFile]) -> tuple[pa.Table, list[FileRows]]:
    """Return the rows of these files, and how many each has; raises OndineError as `read_rows`."""
    import pyarrow as pa

    read = _with_known_types([read_source(dataset.source, file.path) for file in files])
    pairs = zip(read, files, strict=True)
    tables = [_like(read[0], table, files[0], file) for table, file in pairs]
    counts = [
        FileRows(file.name, file.below, table.num_rows)
        for table, file in zip(tables, files, strict=True)
    ]
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    return _with_file_column(dataset, table, files[0], counts), counts


def _with_known_types(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the tables; a column that is empty in a file has the type that it has in others."""
    import pyarrow as pa

    known: dict[str, pa.DataType] = {}
    for table in tables:
        for field in table.schema:
            if table[field.name].null_count < table.num_rows:
                known.setdefault(field.name, field.type)
    typed = []
    for table in tables:
        for place, field in enumerate(table.schema):
            kind = known.get(field.name, field.type)
            if kind != field.type and table[field.name].null_count == table.num_rows:
                nulls = pa.nulls(table.num_rows, kind)
                table = table.set_column(place, field.name, nulls)
        typed.append(table)
    return typed


def _with_file_column(
    dataset: Dataset, table: pa.Table, first: SourceFile, counts: Sequence[FileRows]
) -> pa.Table:
    import pyarrow as pa

    added = dataset.source.file_column
    if added is None:
        return table
    distinct([*table.column_names, added], first.path)
    names = [name for file in counts for name in [file.below] * file.rows]
    return table.append_column(added, pa.array(names, pa.string()))


def _some_files(dataset: Dataset, path: Path) -> Sequence[SourceFile]:
    files = source_files(dataset, path)
    if not files:
        raise SourceNotFound(f"No file matches {path} any more. Put the files back.")
    return files


def _like(first: pa.Table, table: pa.Table, first_file: SourceFile, file: SourceFile) -> pa.Table:
    """Return `table` with its columns in the order of the first file's."""
    if table.schema.equals(first.schema):
        return table
    ours, theirs = set(first.column_names), set(table.column_names)
    differs = [
        *(f"it lacks {name}" for name in first.column_names if name not in theirs),
        *(f"it has {name} besides" for name in table.column_names if name not in ours),
        *(
            f"{name} is {table.schema.field(name).type} instead of {first.schema.field(name).type}"
            for name in first.column_names
            if name in theirs and table.schema.field(name).type != first.schema.field(name).type
        ),
    ]
    if differs:
        more = "; ..." if len(differs) > _SHOWN_COLUMNS else ""
        raise OndineError(
            f"{file.path} has other columns than {first_file.path}: "
            f"{'; '.join(differs[:_SHOWN_COLUMNS])}{more}. All files of a source need the same "
            f"columns: correct the file, or move it away."
        )
    return table.select(first.column_names).cast(first.schema)
