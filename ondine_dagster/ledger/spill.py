"""The spill: settlements that the ledger could not take, in the lock file of their process.

Room for them is allocated while there is some, so that a full disk still takes them. One line per
settlement: a checksum and JSON, sealed where answers are. The lines go into the ledger as soon as
it can be written again, by their process or by the one that buries it. What is taken in twice moves
nothing.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from zlib import crc32

from pydantic import ConfigDict, TypeAdapter, ValidationError
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.database import LedgerUnavailable, open_private
from ondine_dagster.ledger.records import Settlement
from ondine_dagster.ledger.sealing import Sealing, Unreadable
from ondine_dagster.ledger.settle import settle
from ondine_dagster.ledger.spend import moving
from ondine_dagster.wording import plural

ROOM_BYTES = 4 * 2**20
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_CRC_DIGITS = 8
_SEALED, _BOUND_TO = b"*", b"spill"  # JSON begins with a brace
# in a tuple: a dataclass takes the configuration only from what holds it
_SETTLEMENTS = TypeAdapter(tuple[Settlement], config=ConfigDict(val_json_bytes="hex"))
_log = logging.getLogger(__name__)


class Spill:
    """The lines in the lock file of this process. Only one thread may use it."""

    def __init__(self, path: Path, file: IO[bytes], sealing: Sealing) -> None:
        """Allocate room in `file`, which is new and will be at `path`. Raises OSError."""
        self.path = path
        self._sealing = sealing
        self._file = file
        self._end = 0
        self._room = 0
        self._make_room(ROOM_BYTES)

    @property
    def empty(self) -> bool:
        """Return whether no settlement is in it."""
        return self._end == 0

    def append(self, items: Sequence[Settlement]) -> None:
        """Add lines, which are on the disk when this returns. Raises OSError."""
        if not items:
            return
        descriptor = self._file.fileno()
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "Somebody removed it", str(self.path))
        lines = b"".join(_line(item, self._sealing) for item in items)
        self._make_room(self._end + len(lines))
        _write(descriptor, lines, self._end)
        os.fsync(descriptor)
        self._end += len(lines)

    def clear(self) -> None:
        """Forget all lines; the room stays. Raises OSError."""
        # all of it: behind the end may stand what could be written only in part
        os.ftruncate(self._file.fileno(), ROOM_BYTES)
        self._room = ROOM_BYTES
        _write(self._file.fileno(), bytes(ROOM_BYTES), 0)
        self._end = 0

    def set_aside(self, refused: Sequence[Settlement]) -> None:
        """Keep what the ledger refuses where a person can look at it, and say so."""
        path = self.path.with_suffix(".refused")
        try:
            with open_private(path, "ab") as file:
                file.write(b"".join(_line(item, self._sealing) for item in refused))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _log.error("%s cannot be written: %s", path, error)
        report_refused(refused, path)

    def _make_room(self, size: int) -> None:
        if size > self._room:
            _allocate(self._file.fileno(), self._room, size - self._room)
            self._room = size


@dataclass(frozen=True, slots=True)
class Lines:
    """What stands in a spill. `damaged` bytes are in lines that nobody can read any more."""

    settlements: tuple[Settlement, ...] = ()
    damaged: int = 0


def read(file: IO[bytes], sealing: Sealing) -> Lines:
    """Read the spill of a dead process, whose lock the caller holds.

    A last line without an end was being written at its death: nobody was told that it is safe.
    """
    *lines, _ = file.read().rstrip(b"\0").split(b"\n")
    found = []
    damaged = 0
    for line in lines:
        # zeros before it: the lines there were taken in, but could not be emptied to the end
        settlement = _settlement(line.lstrip(b"\0"), sealing)
        if settlement is None:
            damaged += len(line) + 1
        else:
            found.append(settlement)
    return Lines(tuple(found), damaged)


def take_in(connection: Connection, items: Sequence[Settlement]) -> list[Settlement]:
    """Settle what was spilled; return what the ledger refuses, which is a bug of ours.

    One by one: such a line must not keep the others out. Raises LedgerUnavailable.
    """
    return [item for item in items if not _taken_in(connection, item)]


def report_refused(refused: Sequence[Settlement], path: Path) -> None:
    """Say whose end cannot be written, and where it is kept."""
    _log.error(
        "The ledger refuses how %s ended: %s. They count as of unknown outcome. What "
        "was received is kept in %s: report this, and do not delete that file.",
        plural(len(refused), "request"),
        ", ".join(item.attempt.hex() for item in refused),
        path,
    )


def _taken_in(connection: Connection, item: Settlement) -> bool:
    taken_in = True
    connection.exec_driver_sql("SAVEPOINT spilled")
    try:
        with moving(connection) as movements:
            settle(connection, [item], movements)
    except LedgerUnavailable:
        raise  # the transaction is gone, and the savepoint with it
    except Exception:  # noqa: BLE001 (it is logged, and the others are taken in)
        _log.exception("The end of request %s cannot be written.", item.attempt.hex())
        connection.exec_driver_sql("ROLLBACK TO spilled")
        taken_in = False
    connection.exec_driver_sql("RELEASE spilled")
    return taken_in


def _line(item: Settlement, sealing: Sealing) -> bytes:
    """Return a settlement as a line; also one with a text that no database would take."""
    content = json.dumps(asdict(item), default=bytes.hex, ensure_ascii=False)
    body = content.encode("utf-8", "surrogatepass")
    if sealing.namespace is not None:
        body = _SEALED + b64encode(sealing.seal(body, _BOUND_TO))
    return b"%08x %b\n" % (crc32(body), body)


def _settlement(line: bytes, sealing: Sealing) -> Settlement | None:
    """Return what a line says; None where it is damaged, or of another key."""
    body = line[_CRC_DIGITS + 1 :]
    if line[: _CRC_DIGITS + 1] != b"%08x " % crc32(body):
        return None
    try:
        if body.startswith(_SEALED):
            body = sealing.open(b64decode(body[len(_SEALED) :]), _BOUND_TO)
        (item,) = _SETTLEMENTS.validate_json(b"[%b]" % body)
    except (Unreadable, ValidationError):
        return None
    return item


def _write(descriptor: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _allocate(descriptor: int, offset: int, size: int) -> None:
    """Take room on the disk behind the end of a file; it reads as zeros."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, offset, size)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
        else:
            return
    _write(descriptor, bytes(size), offset)
