"""Brings the texts in the lake's files over to the key and the scope that are set now.

File by file, each replaced whole: where it is cut short, it is run again. No run may write
meanwhile.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ondine_dagster.ledger.sealing import Unreadable
from ondine_dagster.storage.layout import asset_files
from ondine_dagster.storage.parquet_files import LakeFile, LakeWriter, read_metadata
from ondine_dagster.storage.sealed_texts import SEALED_ASSETS, SEALED_NOTE, to_seal


@dataclass(slots=True)
class RekeyedFiles:
    """How many files were brought over, and why others stay as they are."""

    files: int = 0
    problems: list[str] = field(default_factory=list)


def rekey_files(root: Path) -> RekeyedFiles:
    """Seal the texts of prompts and answers below the lake `root` as is set now, or open them.

    A file that is sealed like that already is left alone. Raises OndineError for a damaged file.
    """
    done = RekeyedFiles()
    folders = (folder / asset for folder in sorted(root.glob("*")) for asset in SEALED_ASSETS)
    for path in (file for folder in folders for file in asset_files(folder)):
        try:
            done.files += _rekey(path)
        except Unreadable as error:
            done.problems.append(str(error))
    return done


def _rekey(path: Path) -> bool:
    sealed, notes = to_seal(path), read_metadata(path)
    if notes.pop(SEALED_NOTE, None) == (sealed.key if sealed else None):
        return False
    before = path.stat()
    with closing(LakeFile(path)) as file, LakeWriter(path, file.schema, notes, sealed) as writer:
        for batch in file.iter_batches():
            writer.append(batch)
        writer.commit()
    # its time says since when these rows are what was sent
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True
