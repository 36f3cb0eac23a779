"""How answer keys are made for the ledger in use, and what a file of the lake notes of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ondine_dagster.ledger.identity import keyed
from ondine_dagster.ledger.key_secret import KEYS_NOTE, key_secret, secret_name

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class LedgerKeys:
    """The secret of the ledger that was looked at last; keys are plain hashes without one.

    A step looks before it makes keys: `rekey` may have given the ledger its secret since.
    """

    secret: bytes | None = None

    def look(self, connection: Connection | None) -> None:
        """Make keys as this ledger has them; without a connection there is no ledger yet.

        Raises OndineError where it has two kinds.
        """
        self.secret = None if connection is None else key_secret(connection)

    def hidden(self, digest: bytes) -> bytes:
        """Return a digest of messages as files hold it: it would give away what was asked."""
        return digest if self.secret is None else keyed(digest, self.secret)

    def brought_over(self, digest: bytes, notes: Mapping[str, str]) -> bytes:
        """Return a digest from a file with these notes as `hidden` makes it now."""
        return digest if KEYS_NOTE in notes else self.hidden(digest)

    @property
    def notes(self) -> dict[str, str]:
        """Return what a file notes that holds such keys: nothing of plain hashes."""
        return {} if self.secret is None else {KEYS_NOTE: secret_name(self.secret)}

    def made(self, notes: Mapping[str, str]) -> bool:
        """Return whether the keys of a file with these notes are made like that."""
        return notes.get(KEYS_NOTE, "") == secret_name(self.secret)
