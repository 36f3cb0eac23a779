"""What an API key is called in the ledger: a keyed hash, so that spending per key can be asked for.

Owns the hash's secret: 32 random bytes made once per ledger. Without them nobody who sees a
fingerprint, in an export perhaps, can test whether a key that he guesses is the one.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from functools import cache

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.schema import properties

FINGERPRINT_BYTES = 8
_SECRET, _SECRET_BYTES = "fingerprint_secret", 32


def fingerprinter(database: Database) -> Callable[[SecretStr], bytes]:
    """Return the function from a key to its fingerprint, the same in every process.

    It touches the ledger at the first key. Raises LedgerUnavailable then.
    """

    @cache
    def secret() -> bytes:
        with database.read() as connection:
            known = _known(connection)
        return known or _made(database)

    def fingerprint(key: SecretStr) -> bytes:
        digest = hmac.digest(secret(), key.get_secret_value().encode(), "sha256")
        return digest[:FINGERPRINT_BYTES]

    return fingerprint


def _made(database: Database) -> bytes:
    with database.write() as connection:
        known = _known(connection)  # another process may have been faster
        if known is None:
            known = os.urandom(_SECRET_BYTES)
            connection.execute(sa.insert(properties), {"name": _SECRET, "value": known})
        return known


def _known(connection: Connection) -> bytes | None:
    value = sa.select(properties.c.value).where(properties.c.name == _SECRET)
    return connection.execute(value).scalar()
