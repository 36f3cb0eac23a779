"""Brings the answer keys in the lake's files over to the secret of their ledger.

Each file notes the name of the secret that its keys are made with; without that note they are
plain hashes. File by file, each replaced whole: where it is cut short, it is run again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ondine_dagster.ledger.identity import keyed
from ondine_dagster.ledger.key_secret import KEYS_NOTE, secret_name
from ondine_dagster.storage.layout import asset_files
from ondine_dagster.storage.parquet_files import LakeWriter, read_metadata, read_table

_COLUMNS = {
    "prompts": ("answer_key", "messages_digest"),
    "responses": ("answer_key", "samples"),
    "results": ("_answer_key",),
    "rejected_rows": ("_answer_key",),
}
_OURS = "ondine.order"  # a note of every file of these; other assets may have their names


def key_files(root: Path, secret: bytes) -> int:
    """Bring the keys in all files below the lake `root` over; return in how many there were any.

    A file whose keys are made with a secret already is left alone. Raises OndineError for a damaged
    file.
    """
    folders = (folder / asset for folder in sorted(root.glob("*")) for asset in _COLUMNS)
    return sum(_brought_over(path, secret) for folder in folders for path in asset_files(folder))


def _brought_over(path: Path, secret: bytes) -> bool:
    import pyarrow as pa

    notes = read_metadata(path)
    if KEYS_NOTE in notes or _OURS not in notes:
        return False
    before, table = path.stat(), read_table(path, as_it_lies=True)
    for name in _COLUMNS[path.parent.name]:
        index = table.schema.get_field_index(name)
        if index >= 0:
            field = table.schema.field(index)
            cells = [_key(one, secret) for one in table.column(name).to_pylist()]
            table = table.set_column(index, field, pa.array(cells, field.type))
    with LakeWriter(path, table.schema, {**notes, KEYS_NOTE: secret_name(secret)}) as writer:
        writer.append(table)
        writer.commit()
    # its time says since when these rows are what was sent
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return True


def _key(cell: Any, secret: bytes) -> Any:
    """Return a key made with the secret: one, in hex or not, or those of a row's samples."""
    if isinstance(cell, bytes):
        return keyed(cell, secret)
    if isinstance(cell, str):
        return keyed(bytes.fromhex(cell), secret).hex()
    if isinstance(cell, list):
        return [{**one, "answer_key": _key(one["answer_key"], secret)} for one in cell]
    return cell
