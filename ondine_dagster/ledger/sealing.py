"""Encrypts what the ledger keeps of answers, where ONDINE_ENCRYPTION_KEY is set.

AES-256 in GCM (https://cryptography.io/en/latest/hazmat/primitives/aead/): what was changed, or
moved to another answer, is refused. What is sealed begins with the namespace of its key, so that
another key is told from damage. Keys are derived by scrypt, as people choose words.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import scrypt, sha256
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.key_secret import make_secret
from ondine_dagster.settings import EncryptionKeys, encryption_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from pydantic import SecretStr

NAMESPACE_BYTES = 4
_NONCE_BYTES = 12
_SALT = b"ondine_dagster ledger"
_OPTION = "sealing"
_PROPERTY, _REKEYING = "encryption key", "rekeying"


class Unreadable(OndineError):
    """A text is there and cannot be read: it was changed, or belongs to another key."""


class Sealing:
    """Seals with the key, opens with the key and with the old one. Cheap until it is used."""

    def __init__(self, keys: EncryptionKeys) -> None:
        """Raises OndineError where there is a key and the library is not installed."""
        self._keys = keys
        if keys.current is not None or keys.old is not None:
            _library()

    @property
    def namespace(self) -> bytes | None:
        """Return the name of the key that seals, None where nothing is sealed."""
        return None if self._keys.current is None else _namespace(self._keys.current)

    def knows(self, namespace: bytes) -> bool:
        """Return whether what is sealed in `namespace` can be opened."""
        return namespace in self._ciphers()

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Return `plain` sealed; it opens only with the same `bound_to`. There must be a key."""
        assert self._keys.current is not None
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(self._keys.current.get_secret_value()).encrypt(nonce, plain, bound_to)
        return _namespace(self._keys.current) + nonce + sealed

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Return what was sealed.

        Raises Unreadable where it is of a key that is not given, or is not what was written.
        """
        from cryptography.exceptions import InvalidTag

        namespace, rest = sealed[:NAMESPACE_BYTES], sealed[NAMESPACE_BYTES:]
        cipher = self._ciphers().get(namespace)
        if cipher is None:
            raise Unreadable(
                f"it is encrypted under another key ({namespace.hex()}): set the key that it was "
                "written with, or bring it over with `ondine-dagster rekey`"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise Unreadable(
                "its bytes are not those that were encrypted: somebody or something has changed "
                "the ledger; restore it from a backup"
            ) from None

    def _ciphers(self) -> dict[bytes, AESGCM]:
        keys = (self._keys.current, self._keys.old)
        return {_namespace(key): _cipher(key.get_secret_value()) for key in keys if key is not None}


def sealing() -> Sealing:
    """Return how this process seals; raises OndineError for a key that is too short."""
    return Sealing(encryption_keys())


def sealing_of(connection: Connection) -> Sealing:
    """Return how the database of a connection seals."""
    found: Sealing = connection.get_execution_options()[_OPTION]
    return found


def option(used: Sealing) -> dict[str, Sealing]:
    """Return the execution options of a database that seals like that."""
    return {_OPTION: used}


def bound_key(connection: Connection) -> bytes | None:
    """Return the namespace of the key that a ledger is sealed with, None where it is not."""
    names = schema.properties.c
    found = connection.execute(sa.select(names.value).where(names.name == _PROPERTY)).scalar()
    return None if found is None else bytes(found)


def set_bound_key(connection: Connection, namespace: bytes | None) -> None:
    """Note which key a ledger is sealed with from now on."""
    table = schema.properties
    connection.execute(sa.delete(table).where(table.c.name == _PROPERTY))
    if namespace is not None:
        connection.execute(sa.insert(table), [{"name": _PROPERTY, "value": namespace}])


def note_rekeying(connection: Connection, begins: bool) -> None:
    """Note that texts are being brought over to another key, or that this has ended."""
    table = schema.properties
    connection.execute(sa.delete(table).where(table.c.name == _REKEYING))
    if begins:
        connection.execute(sa.insert(table), [{"name": _REKEYING, "value": b""}])


def refuse_while_rekeyed(connection: Connection) -> None:
    """Raise OndineError while only some of the texts were brought over to another key."""
    names = schema.properties.c
    if connection.execute(sa.select(names.name).where(names.name == _REKEYING)).first():
        raise OndineError(
            "`ondine-dagster rekey` has not ended, and only some texts could be read now. Wait for "
            "it; if it was cut short, run it again. Nothing was sent."
        )


def bind_key(connection: Connection, ledger: Path, used: Sealing) -> None:
    """Note the key of a ledger where it is new to it. Raises OndineError as `refuse_other_key`."""
    refuse_other_key(connection, ledger, used)
    if used.namespace is None:
        return
    if bound_key(connection) is None:
        set_bound_key(connection, used.namespace)
    make_secret(connection)


def refuse_other_key(connection: Connection, ledger: Path, used: Sealing) -> None:
    """Raise OndineError for another key than the ledger's, and where there is none.

    Before anything is sent, and before a text is written that somebody could read, or nobody.
    """
    bound = bound_key(connection)
    if bound is None or bound == used.namespace:
        return
    if used.namespace is None:
        raise OndineError(
            f"The answers in {ledger} are encrypted (key {bound.hex()}), and ONDINE_ENCRYPTION_KEY "
            "is not set. Set it to that key. Nothing was sent."
        )
    raise OndineError(
        f"The answers in {ledger} are encrypted under key {bound.hex()}; ONDINE_ENCRYPTION_KEY is "
        f"another one ({used.namespace.hex()}). Set the right one. To change the key, set "
        "ONDINE_OLD_ENCRYPTION_KEY to the old one and run: ondine-dagster rekey. Where the old key "
        "is lost: ondine-dagster rekey --lost. Nothing was sent."
    )


def _namespace(key: SecretStr) -> bytes:
    return sha256(b"namespace" + _derived(key.get_secret_value())).digest()[:NAMESPACE_BYTES]


@lru_cache(maxsize=8)
def _derived(key: str) -> bytes:
    # 2**14 takes about 50 ms, once per process
    return scrypt(key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)


@lru_cache(maxsize=8)
def _cipher(key: str) -> AESGCM:
    return _library()(_derived(key))


def _library() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise OndineError(
            "ONDINE_ENCRYPTION_KEY is set, and the library that encrypts is not installed: "
            "pip install 'ondine_dagster[encryption]'"
        ) from None
    return AESGCM
