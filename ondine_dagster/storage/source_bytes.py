"""Source files as bytes: unpacked where they are packed, and text of any encoding as UTF-8."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from ondine_dagster.errors import OndineError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARK = "\ufeff"
_BLOCK_BYTES = 1 << 20
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# How packed files begin, which no text does.
_BEGINNINGS = {
    b"\x1f\x8b": "packed with gzip: give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "packed with zstd: give it a name that ends in .zst",
    b"PK\x03\x04": "an Excel file or a zip archive: give it a name that ends in .xlsx, or in .zip",
}


@contextmanager
def open_unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file; `.gz`, `.bz2`, `.zst`, and the one file in a `.zip` are unpacked.

    Raises:
        OndineError: there is no such file, or it is not packed as its name says.
    """
    if not path.is_file():
        raise OndineError(f"source.path: there is no file {path}.")
    ending = path.suffix.lower()
    if ending not in _PACKED and ending != ".zip":
        with open(path, "rb") as plain:
            yield plain
        return
    import pyarrow as pa

    try:
        if ending == ".zip":
            with ZipFile(path) as archive, archive.open(_only_member(archive, path)) as member:
                yield cast("BinaryIO", member)
        else:
            with pa.input_stream(str(path), compression=_PACKED[ending]) as unpacked:
                yield cast("BinaryIO", unpacked)
    except (OSError, BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise OndineError(f"{path} cannot be unpacked: {error}. Pack the file again.") from None


def _only_member(archive: ZipFile, path: Path) -> ZipInfo:
    """Return the one file of an archive; what macOS adds is none."""
    names = [one for one in archive.infolist() if not one.is_dir()]
    files = [one for one in names if not one.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        raise OndineError(
            f"{path} holds {len(files)} files. One has to be in a .zip file: unpack it into a "
            "folder, and declare that."
        )
    if files[0].flag_bits & 1:
        raise OndineError(f"{path} is encrypted. Unpack it, or pack it without a password.")
    return files[0]


def encoding_of(path: Path, declared: str) -> str:
    """Return in which encoding a text file is: that of its mark, else the declared one."""
    with open_unpacked(path) as file:
        return _encoding(file.read(len(codecs.BOM_UTF8)), declared)


def _encoding(beginning: bytes, declared: str) -> str:
    name = codecs.lookup(declared).name
    if name.startswith("utf-32"):  # whose mark begins like that of UTF-16
        return declared
    if beginning.startswith(codecs.BOM_UTF8):
        return "utf-8"
    return "utf-16" if beginning.startswith(_UTF_16) else declared


@contextmanager
def open_utf8(path: Path, encoding: str) -> Iterator[BinaryIO]:
    """Open a text file as UTF-8 without a byte order mark.

    Reading raises UnicodeDecodeError where the file is not in `encoding`, unless that is UTF-8:
    then its bytes come as they are.

    Raises:
        OndineError: there is no such file, it is not packed as its name says, or it is no text.
    """
    with open_unpacked(path) as file:
        beginning = file.read(max(map(len, _BEGINNINGS)))
        what = next((what for how, what in _BEGINNINGS.items() if beginning.startswith(how)), None)
        if what is not None:
            raise OndineError(f"{path} is {what}.")
        encoding = _encoding(beginning, encoding)
        if codecs.lookup(encoding).name == "utf-8":
            yield Joined(io.BytesIO(beginning.removeprefix(codecs.BOM_UTF8)), file)
        else:
            yield _Transcoded(Joined(io.BytesIO(beginning), file), encoding)


class _Stream(io.RawIOBase):
    """A readable that gives as many bytes as it is asked for until the end.

    Never a short read before: pyarrow takes each for a block and wants a line in it.
    """

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class Joined(_Stream, BinaryIO):
    """Some files, one after the other."""

    def __init__(self, *files: IO[bytes]) -> None:
        self._files = list(files)

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end; all where it is negative."""
        content = b""
        while self._files and (size < 0 or len(content) < size):
            more = self._files[0].read(size if size < 0 else size - len(content))
            content = content + more if content else more
            if not more or size < 0:
                del self._files[0]
        return content


class _Transcoded(_Stream, BinaryIO):
    """A file of another encoding, as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder(encoding)()
        self._ready = bytearray()
        self._begun = self._ended = False

    def read(self, size: int = -1) -> bytes:
        while not self._ended and (size < 0 or len(self._ready) < size):
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            text = self._decode.decode(block, final=self._ended)
            self._ready += (text if self._begun else text.removeprefix(_MARK)).encode()
            self._begun = self._begun or bool(text)
        end = len(self._ready) if size < 0 else size
        content = bytes(self._ready[:end])
        del self._ready[:end]
        return content
