"""Seals texts of prompts and answers in the lake's files, where ONDINE_ENCRYPTION_KEY is set.

Owns which columns these are and what a sealed cell looks like. Cells are sealed one by one and stay
text, so that files keep their columns for Parquet and DuckDB; each is bound to its file, its row
and its column, so that cells that were swapped are noticed. A file is sealed as a whole and notes
the name of its key: files from before are read as they are, and no text is taken for a sealed one.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ondine_dagster.settings import EncryptionScope, encryption_keys
from ondine_dagster.storage.layout import partition_of, unquoted

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.ledger.sealing import Sealing

SEALED_NOTE = "ondine.sealed"
UNREADABLE = "(encrypted under a key that is not given)"  # stands for a text where it is shown
_PREFIX = "sealed:"
_PROMPTS = {"prompts": ("messages", "error_message")}
# messages about errors quote what they are about
_ANSWERS = {
    "responses": ("text", "error_message", "events", "samples"),
    "rejected_rows": ("_raw_text", "_error_message", "_events"),
    "verified": ("before", "now", "why"),
}
# what names a row of a file
_BY_KEY = ("_row_key",)
_NAMED_BY = {"verified": ("call", "partition", "_row_key", "column")}
_COLUMNS = _PROMPTS | _ANSWERS
SEALED_ASSETS = tuple(_COLUMNS)
_IN_LISTS = ("text", "error_message", "message")  # the texts of samples and events

# what is made of a text; its row and its place in that
_Change = Callable[[str, str, str], str]


class SealedTexts:
    """The sealed texts of one file: `key` is the name of what they are sealed with.

    `named_by` are the columns that texts are bound to: they have to be read with them.
    """

    def __init__(self, path: Path, key: str, sealing: Sealing) -> None:
        self.path = path
        self.key = key
        self._sealing = sealing
        asset = path.parent.name
        self._columns: Collection[str] = _COLUMNS.get(asset, ())
        self.named_by = _NAMED_BY.get(asset, _BY_KEY)
        self._dataset, self._asset = unquoted(path.parent.parent.name), asset
        self._partition = partition_of(path) or ""
        self._bound_to = f"{path.parent.parent.name}\0{asset}\0{path.name}\0"

    def seal(self, rows: pa.Table | pa.RecordBatch) -> Any:
        """Return rows with their texts sealed."""
        return _changed(rows, self._columns, self.named_by, self._seal)

    def open(self, rows: pa.Table | pa.RecordBatch, *, shown: bool = False) -> Any:
        """Return rows with their texts as they were.

        Raises Unreadable where they are of another key, or a cell is not what was written there.
        Only `shown`, UNREADABLE stands for texts of another key.
        """
        if shown and not self.readable:
            return _changed(rows, self._columns, self.named_by, lambda *_: UNREADABLE)
        if self.opens(rows.schema.names):
            self.refuse_other_key()
        return _changed(rows, self._columns, self.named_by, self._open)

    def opens(self, columns: Collection[str]) -> bool:
        """Return whether one of these columns is sealed."""
        return not set(self._columns).isdisjoint(columns)

    @property
    def readable(self) -> bool:
        """Return whether the key of these texts is given."""
        try:
            return self._sealing.knows(bytes.fromhex(self.key))
        except ValueError:
            return False  # somebody has changed the note: no key is named like that

    def refuse_other_key(self) -> None:
        """Raise Unreadable where the key of these texts is not given."""
        from ondine_dagster.ledger.sealing import Unreadable

        if self.readable:
            return
        own = self._sealing.namespace
        state = "is not set" if own is None else f"is another one ({own.hex()})"
        raise Unreadable(
            f"{self._place}: the texts in `{self._asset}` are encrypted under "
            f"key {self.key}, and ONDINE_ENCRYPTION_KEY {state}. Set it to that key; to change the "
            "key, set ONDINE_OLD_ENCRYPTION_KEY to the old one and run: ondine-dagster rekey. "
            f"{self._anew('Where the key is lost')}"
        )

    def _seal(self, text: str, row: str, place: str) -> str:
        from ondine_dagster.ledger import payloads

        _, body = payloads.encode(text, self._bound(row, place), self._sealing)
        return _PREFIX + b64encode(body).decode()

    def _open(self, text: str, row: str, place: str) -> str:
        from ondine_dagster.ledger import payloads
        from ondine_dagster.ledger.sealing import Unreadable

        try:
            if not text.startswith(_PREFIX):
                raise ValueError
            body = b64decode(text.removeprefix(_PREFIX), validate=True)
            return payloads.decode(payloads.SEALED, body, self._bound(row, place), self._sealing)
        except (Unreadable, ValueError):
            raise Unreadable(
                f"{self._place}: the text of row {_row(row)} in `{self._asset}.{place}` is not "
                "what was encrypted there: somebody or something has changed "
                f"{self.path}. {self._anew('Restore it from a backup; without one')}"
            ) from None

    def _bound(self, row: str, place: str) -> bytes:
        return f"{self._bound_to}{row}\0{place}".encode()

    @property
    def _place(self) -> str:
        return f"{self._dataset} {self._partition}".rstrip()

    def _anew(self, condition: str) -> str:
        if self._asset == "verified":
            return f"{condition}: ondine-dagster verify {self._dataset}, which writes it anew."
        run = f"ondine-dagster run {self._dataset} --partition {quote(self._partition)}"
        if self._asset in _PROMPTS:
            return f"{condition}: {run}, which makes prompts anew, for nothing."
        return (
            f"{condition}: {run}, which takes answers that are paid from the ledger, for nothing. "
            "Where the ledger cannot read them either, their results stay; to ask, and to pay, "
            "once more, add --pay-again."
        )


def to_seal(path: Path) -> SealedTexts | None:
    """Return how a new file has to be sealed, None where it has not.

    Raises OndineError for a key that is too short.
    """
    keys = encryption_keys()
    sealed = _ANSWERS if keys.scope is EncryptionScope.RESPONSES_ONLY else _COLUMNS
    if keys.current is None or path.parent.name not in sealed:
        return None
    from ondine_dagster.ledger.sealing import Sealing

    sealing = Sealing(keys)
    assert sealing.namespace is not None
    return SealedTexts(path, sealing.namespace.hex(), sealing)


def key_name() -> str | None:
    """Return the name of the key under which new texts are sealed; None where they are not.

    Raises OndineError for a key that is too short.
    """
    keys = encryption_keys()
    if keys.current is None:
        return None
    from ondine_dagster.ledger.sealing import Sealing

    namespace = Sealing(keys).namespace
    return None if namespace is None else namespace.hex()


def as_sealed(path: Path, notes: Mapping[str, str]) -> SealedTexts | None:
    """Return how a file is sealed that has these notes, None where it is not."""
    if SEALED_NOTE not in notes:
        return None
    from ondine_dagster.ledger.sealing import sealing

    return SealedTexts(path, notes[SEALED_NOTE], sealing())


def readable(path: Path, notes: Mapping[str, str]) -> bool:
    """Return whether the texts of a file that has these notes can be read."""
    sealed = as_sealed(path, notes)
    return sealed is None or sealed.readable


def _changed(rows: Any, columns: Collection[str], named_by: Sequence[str], change: _Change) -> Any:
    import pyarrow as pa

    names: list[str] | None = None
    for index, field in enumerate(rows.schema):
        column = rows.column(index)
        if field.name not in columns or column.null_count == len(column):
            continue
        names = names or _names(rows, named_by)
        cells = [
            _cell(cell, row, field.name, change)
            for row, cell in zip(names, column.to_pylist(), strict=True)
        ]
        rows = rows.set_column(index, field, pa.array(cells, field.type))
    return rows


def _names(rows: Any, named_by: Sequence[str]) -> list[str]:
    cells = [rows.column(name).to_pylist() for name in named_by]
    return ["\0".join(one or "" for one in row) for row in zip(*cells, strict=True)]


def _row(name: str) -> str:
    """Return how a person knows a row."""
    return name.replace("\0", " ").strip()


def _cell(cell: Any, row: str, place: str, change: _Change) -> Any:
    """Return a cell with its texts changed: it is one, or a list of records that have some."""
    if isinstance(cell, str):
        return change(cell, row, place)
    if not isinstance(cell, list):
        return cell
    return [
        {
            name: _cell(value, row, f"{place}/{number}/{name}", change)
            if name in _IN_LISTS or isinstance(value, list)
            else value
            for name, value in record.items()
        }
        for number, record in enumerate(cell)
    ]
