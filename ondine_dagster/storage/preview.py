"""The source as it is now, seen as the next snapshot would: nothing in the lake changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ondine_dagster.storage.atomic import ensure_folder
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.located import Located
from ondine_dagster.storage.snapshot import Snapshot, current_snapshot, take_snapshot
from ondine_dagster.storage.snapshot_file import SNAPSHOT, write_pointer

if TYPE_CHECKING:
    from ondine_dagster.spec import Dataset


@contextmanager
def preview_snapshot(
    lake: Lake, dataset: Dataset, source: Located
) -> Iterator[tuple[Lake, Snapshot]]:
    """Take a snapshot into a lake of its own, which is gone after the block; yield both.

    It begins with the current snapshot, so that rows have the partitions that they will have.

    Raises:
        OndineError: as `take_snapshot`.
    """
    with TemporaryDirectory(prefix="ondine_dagster_preview_") as folder:
        aside = Lake(Path(folder))
        current = current_snapshot(lake, dataset.name)
        if current is not None:
            link = aside.path(dataset.name, SNAPSHOT, current.version)
            ensure_folder(link.parent)
            link.symlink_to(current.path)
            write_pointer(aside, current, (current.version,))
        yield aside, take_snapshot(aside, dataset, source).snapshot
