"""Images and documents of rows, by the sha256 of their bytes: `<data dir>/attachments/ab/ab12...`.

The lake holds only the digest. What was fetched or came in base64 is kept here once, however many
rows have it; what lies on this machine is not copied, a link points to it. To delete the folder
costs no answer: a run that needs a file says so, and `prompts` brings it again.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ondine_dagster.storage.atomic import AtomicFile, ensure_folder


class AttachmentStore:
    """The folder. May be used from several threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, data: bytes) -> str:
        """Make `data` durable; return its digest in hex."""
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        if not self._known(digest):
            ensure_folder(path.parent)
            with AtomicFile(path) as file:
                file.stream.write(data)
                file.commit()
        return digest

    def point_to(self, path: Path, digest: str) -> None:
        """Remember that the file at `path` has this digest, unless a file with it is known."""
        if self._known(digest):
            return
        link = self._path(digest)
        ensure_folder(link.parent)
        temporary = link.with_name(f".{secrets.token_hex(8)}.link")
        temporary.symlink_to(path.absolute())
        os.replace(temporary, link)

    def load(self, digest: str) -> bytes | None:
        """Return the bytes with this digest; None where they are gone or not the same any more."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        return data if sha256(data).hexdigest() == digest else None

    def unused_since(self, before_ms: int) -> set[str]:
        """Return the digests of what was last kept before that (ms since the epoch, UTC)."""
        paths = self._root.glob("??/*") if self._root.exists() else ()
        return {one.name for one in paths if one.lstat().st_mtime_ns < before_ms * 1_000_000}

    def remove(self, digest: str) -> None:
        """Remove a file, or the link to it; what a link points to stays."""
        self._path(digest).unlink(missing_ok=True)

    def _known(self, digest: str) -> bool:
        """Return whether the file is there; if so its time says that it is wanted still."""
        if self.load(digest) is None:
            return False
        with suppress(FileNotFoundError):
            os.utime(self._path(digest), follow_symlinks=False)
        return True

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest
