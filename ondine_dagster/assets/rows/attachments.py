"""Reads the images and documents that rows name, before anything is asked.

Here and not where requests are sent: the answer key needs the digest, and a file that is missing,
too large or at a forbidden address is a row error before money is spent. A batch of rows is read
with a few files in memory at a time; what stays is the digest, and the file in the store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ondine_dagster.engine.address_guard import AddressRefusedError, check_url
from ondine_dagster.engine.fetching import Fetcher, FetchLimits, NotFetched
from ondine_dagster.llm.attachments import (
    Attachment,
    AttachmentError,
    Kind,
    from_base64,
    inspected,
)
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import RenderError
from ondine_dagster.spec import Document, Image, Prompt
from ondine_dagster.storage.attachments import AttachmentStore

FETCHED_AT_ONCE = 16
# how the five kinds of files begin in base64; a path with this start would name no file of theirs
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "JVBERi0")
_SHORTEST_BASE64 = 60  # characters: a path may begin the same way, but hardly goes on for so long

Attached = tuple[Attachment, ...]
_Found = Attachment | AttachmentError


@dataclass(frozen=True, slots=True)
class _Named:
    """What one cell names, and how it is sent."""

    cell: str | bytes
    kind: Kind
    fetch: bool
    detail: str | None


def _named(declared: Image | Document, cell: Any) -> list[_Named]:
    """Return what a cell names: nothing, one file, or all of a list, which may be JSON."""
    names = cell if isinstance(cell, list) else [cell]
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with suppress(ValueError):  # else it is a path, though an odd one
            names = json.loads(cell)
    detail = declared.detail if isinstance(declared, Image) else None
    kind: Kind = "image" if isinstance(declared, Image) else "document"
    stripped = [one.strip() if isinstance(one, str) else one for one in names]
    return [
        _Named(one if isinstance(one, str | bytes) else str(one), kind, declared.fetch, detail)
        for one in stripped
        if one is not None and one != ""
    ]


class AttachmentReader:
    """Reads what rows of one dataset name.

    Without a `store` nothing is fetched or written: a URL stands for what is there, so that a plan
    counts its row as a new question.
    """

    def __init__(
        self, prompt: Prompt, folder: Callable[[], Path], store: AttachmentStore | None
    ) -> None:
        """`folder` gives what paths are relative to, and must lie in; asked for with the first."""
        files = prompt.files
        self._declared = prompt.attached
        self._folder = folder
        self._store = store
        self._max_bytes = files.max_bytes
        self._trusted = frozenset(files.trusted_hosts)
        self._limits = FetchLimits(files.max_bytes, files.timeout_seconds, self._trusted)

    @property
    def wanted(self) -> bool:
        """Whether rows have files at all."""
        return bool(self._declared)

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[Attached | RenderError]:
        """Return for each row what goes with its prompt, or why it cannot be asked."""
        named = [[_named(one, row.get(one.column)) for one in self._declared] for row in rows]
        found = self._read_all(list({one: None for row in named for cell in row for one in cell}))
        return [self._row([[found[one] for one in cell] for cell in row]) for row in named]

    def _row(self, found: Iterable[Sequence[_Found]]) -> Attached | RenderError:
        attached: list[Attachment] = []
        for declared, files in zip(self._declared, found, strict=True):
            if declared.required and not files:
                message = f"{declared.column} is blank, and the prompt needs it"
                return RenderError(ErrorCode.ATTACHMENT_MISSING, message)
            for one in files:
                if isinstance(one, AttachmentError):
                    return RenderError(one.code, f"{declared.column} {one.message}")
                attached.append(one)
        return tuple(attached)

    def _read_all(self, wanted: Sequence[_Named]) -> dict[_Named, _Found]:
        """Read each file once, however many rows of the batch name it."""
        started: Future[Callable[[], None]] = Future()
        # a thread of its own: Dagster, or a notebook, may have a loop in this one
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(asyncio.run, self._gather(wanted, started))
            try:
                return found.result()
            except BaseException:  # an interrupt of this thread: nobody waits for slow servers
                started.result(timeout=5)()
                raise

    async def _gather(
        self, wanted: Sequence[_Named], started: Future[Callable[[], None]]
    ) -> dict[_Named, _Found]:
        """Read all; `started` is told how to end that early, from another thread."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end() -> None:
            with suppress(RuntimeError):  # it has ended, and its loop is closed
                loop.call_soon_threadsafe(task.cancel)

        started.set_result(end)
        fetcher = Fetcher(self._limits)
        found: dict[_Named, _Found] = {}
        waiting = iter(wanted)

        async def work() -> None:
            for one in waiting:
                found[one] = await self._one(one, fetcher)

        try:
            await asyncio.gather(*(work() for _ in range(FETCHED_AT_ONCE)))
        finally:
            await fetcher.aclose()
        return found

    async def _one(self, named: _Named, fetcher: Fetcher) -> _Found:
        cell = named.cell
        if isinstance(cell, str) and cell.lower().startswith(("https://", "http://")):
            return await self._url(named, cell, fetcher)
        return await asyncio.to_thread(self._held, named)

    async def _url(self, named: _Named, url: str, fetcher: Fetcher) -> _Found:
        if self._store is None or not named.fetch:
            try:
                check_url(url, self._trusted)
            except AddressRefusedError as error:
                return AttachmentError(ErrorCode.REMOTE_REFUSED, f"is not asked for: {error}")
            return Attachment(named.kind, url=url, detail=named.detail)
        data = await fetcher.fetch(url)
        if isinstance(data, NotFetched):
            return AttachmentError(data.code, f"could not be fetched: {data.message}")
        return await asyncio.to_thread(self._kept, named, data)

    def _held(self, named: _Named) -> _Found:
        """Return what is in the cell itself, or in the file that it names."""
        cell = named.cell
        if isinstance(cell, bytes):
            if len(cell) > self._max_bytes:
                return self._too_large()
            return self._kept(named, cell)
        bare = cell.startswith(_BASE64_STARTS) and len(cell) >= _SHORTEST_BASE64
        if bare or cell.startswith("data:"):
            data = from_base64(cell, self._max_bytes)
            return data if isinstance(data, AttachmentError) else self._kept(named, data)
        return self._file(named, cell)

    def _file(self, named: _Named, name: str) -> _Found:
        folder = self._folder().resolve()
        try:
            # links are followed first: none may lead out of the folder
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                message = f"names a file outside of {folder} (`prompt.files.folder`)"
                return AttachmentError(ErrorCode.ATTACHMENT_INVALID, message)
            with open(path, "rb") as file:
                data = file.read(self._max_bytes + 1)
        except (OSError, ValueError):
            message = f"names no file that can be read in {folder}"
            return AttachmentError(ErrorCode.ATTACHMENT_MISSING, message)
        if len(data) > self._max_bytes:
            return self._too_large()
        digest = sha256(data).hexdigest()
        found = inspected(data, named.kind, digest, named.detail)
        if self._store is not None and isinstance(found, Attachment):
            self._store.point_to(path, digest)
        return found

    def _kept(self, named: _Named, data: bytes) -> _Found:
        found = inspected(data, named.kind, sha256(data).hexdigest(), named.detail)
        if self._store is not None and isinstance(found, Attachment):
            self._store.keep(data)
        return found

    def _too_large(self) -> AttachmentError:
        message = f"is larger than {self._max_bytes:,} bytes (`max_bytes`)"
        return AttachmentError(ErrorCode.ATTACHMENT_TOO_LARGE, message)
