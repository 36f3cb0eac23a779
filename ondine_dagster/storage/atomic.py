"""Files that appear whole or not at all.

Owns the temporary name, the flush to disk and the rename. A crash at any point leaves the old file
valid; what a dead writer left behind goes when the next writer of the same file starts.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

_SUFFIX = ".tmp"


class AbortedUnlessCommitted(ABC):
    """A context manager that aborts at its end, which does nothing after a commit."""

    @abstractmethod
    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class AtomicFile(AbortedUnlessCommitted):
    """Write to `stream`, then `commit`; as a context manager it aborts unless committed.

    The temporary file lies in the same folder (a rename is atomic only within a file system), its
    name starts with a dot and does not end like the file itself, so that no reader lists it. It is
    locked as long as its writer lives: the lock, unlike a process id, also tells the dead from the
    living when ids are used again or containers share the folder.
    """

    def __init__(self, path: Path, *, private: bool = True) -> None:
        """Open a temporary file beside `path`; the folder must exist (else FileNotFoundError).

        `private`: only its owner may read it; else it is as other files of this person are.
        """
        self.path = path
        remove_abandoned(path)
        self._temporary, self.stream = _create_locked(path, 0o600 if private else 0o666)
        self._open = True

    @property
    def scratch(self) -> Path:
        """Return a name beside the temporary file, for a writer that needs a file of its own.

        What it leaves behind goes with the temporary files of dead writers.
        """
        return self._temporary.with_suffix(f".scratch{_SUFFIX}")

    def commit(self) -> Path:
        """Make the content durable under its name and return the name."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        os.replace(self._temporary, self.path)
        self._open = False
        self.stream.close()
        fsync_folder(self.path.parent)
        return self.path

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        if self._open:
            self._open = False
            self._temporary.unlink(missing_ok=True)
            self.stream.close()


def write_atomically(path: Path, content: bytes, *, private: bool = True) -> Path:
    """Replace `path` by `content`, durably."""
    with AtomicFile(path, private=private) as file:
        file.stream.write(content)
        return file.commit()


def remove_abandoned(path: Path) -> None:
    """Delete the temporary files of `path` whose writers are dead."""
    # listdir: an interrupt can come at any step, and nothing is open that it could leave open
    for name in os.listdir(path.parent):
        if name.startswith(f".{path.name}.") and name.endswith(_SUFFIX):
            _remove_unless_locked(path.parent / name)


def ensure_folder(folder: Path, *, private: bool = True) -> None:
    """Create `folder` with its parents so that they are still there after a power cut.

    `private`: only its owner may look into those that are new.
    """
    missing = [folder, *folder.parents]
    for each in reversed([path for path in missing if not path.exists()]):
        each.mkdir(0o700 if private else 0o777, exist_ok=True)
        fsync_folder(each.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a rename is only in memory until then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_locked(path: Path, mode: int) -> tuple[Path, BinaryIO]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}")
        opener = partial(os.open, mode=mode)
        stream = open(temporary, "xb", opener=opener)  # noqa: SIM115 - AtomicFile closes it
        fcntl.flock(stream, fcntl.LOCK_EX)
        # Between creation and lock another writer may have taken it for abandoned.
        if temporary.exists():
            return temporary, stream
        stream.close()


def _remove_unless_locked(temporary: Path) -> None:
    try:
        with open(temporary, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink(missing_ok=True)
            # what DuckDB keeps beside a scratch file
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        pass  # its writer lives, or has just finished
