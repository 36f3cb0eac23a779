"""Files in an object store (s3://, gs://, az://, ...), by fsspec: copied here, then read.

Owns the copies, which are gone when the rows are read. Who may read is told by the environment, as
the store's package documents it; nothing of that is declared or shown.
https://filesystem-spec.readthedocs.io/en/latest/usage.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.file_names import FileNames
from ondine_dagster.spec.file_places import OBJECT_STORES, files_in, is_pattern
from ondine_dagster.spec.source_formats import file_format
from ondine_dagster.storage.located import Piece
from ondine_dagster.storage.partitioning import FileRows
from ondine_dagster.storage.source_files import (
    SourceFile,
    columns_of_files,
    fixed_folder,
    read_files,
)
from ondine_dagster.storage.sources import SourceNotFound

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.spec import Dataset

# Of what a store tells of a file, in the words of one or the other: one that changes with it.
_VERSIONS = ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True)
class StoreFiles:
    """The files of an address, which may be a pattern, or end in / for a folder."""

    dataset: Dataset
    address: str

    @property
    def shown(self) -> str:
        """The address."""
        return self.address

    def columns(self) -> list[str]:
        """Return the column names of the first file; raises OndineError as `read` does."""
        with self._copies(1) as files:
            return columns_of_files(self.dataset, files)

    def read(self) -> tuple[pa.Table, list[FileRows]]:
        """Return all rows, file by file.

        Raises:
            SourceNotFound: there is no such file.
            OndineError: the store's package is not installed, the store does not answer, or a file
                cannot be read without loss.
        """
        with self._copies() as files:
            return read_files(self.dataset, files)

    def pieces(self) -> list[Piece]:
        """Return the files as the store tells of them; raises OndineError."""
        with self._answering():
            return [
                Piece(name, _version(details), int(details.get("size") or 0))
                for name, details in self._found()[1].items()
            ]

    @contextmanager
    def _copies(self, most: int | None = None) -> Iterator[list[SourceFile]]:
        searched = self._searched()
        fixed = fixed_folder(searched)
        with TemporaryDirectory(prefix="ondine_dagster_") as folder:
            files = []
            with self._answering():
                store, found = self._found()
                for number, name in enumerate(list(found)[:most]):
                    # by number: files of several folders may have one name
                    copy = Path(folder) / str(number) / PurePosixPath(name).name
                    copy.parent.mkdir()
                    store.get_file(found[name]["name"], str(copy))
                    files.append(SourceFile(copy, name, name.removeprefix(fixed)))
            try:
                yield files
            except OndineError as error:
                text = str(error)
                for file in files:
                    text = text.replace(str(file.path), file.name)
                raise OndineError(text) from None

    def _searched(self) -> str:
        pattern = files_in(self.address)
        return FileNames(pattern).glob if self.dataset.partitions.time is not None else pattern

    def _found(self) -> tuple[Any, dict[str, Any]]:
        """Return the store, and of each file by its address what the store tells of it."""
        import fsspec

        searched = self._searched()
        store, path = fsspec.core.url_to_fs(searched)
        store.invalidate_cache()  # a daemon would never see a new file
        scheme = searched.partition("://")[0]
        if not is_pattern(searched):
            known = {path: store.info(path)} if store.exists(path) else {}
        else:
            known = store.glob(path, detail=True)
        found = {f"{scheme}://{name.lstrip('/')}": told for name, told in sorted(known.items())}
        files = {name: told for name, told in found.items() if _is_whole_file(name, told)}
        if not files:
            raise SourceNotFound(f"There is no file {self.address}. Correct it, or put it there.")
        return store, files

    @contextmanager
    def _answering(self) -> Iterator[None]:
        package, extra = OBJECT_STORES[self.address.partition("://")[0]]
        try:
            yield
        except OndineError:
            raise
        except ImportError:
            raise OndineError(
                f"{self.address} needs the package {package}, the extra `{extra}`: "
                f"pip install 'ondine_dagster[{extra}]'"
            ) from None
        except Exception as error:  # noqa: BLE001 (each store's package has errors of its own)
            raise OndineError(
                f"{self.address} cannot be read: {type(error).__name__}: {error}"
            ) from None


def _is_whole_file(name: str, told: Any) -> bool:
    """Return whether this is a file to read: no folder, and none that a tool has not finished."""
    is_hidden = PurePosixPath(name).name.startswith(".")
    return told["type"] == "file" and not is_hidden and file_format(name) is not None


def _version(told: Any) -> str:
    return "\0".join(str(told[key]) for key in _VERSIONS if told.get(key))
