"""The ledger's own secret, under which answer keys are made where answers are encrypted.

It stands in the ledger, readable, and stays the same whatever happens to the encryption: a lost
encryption key must not make every question a new one. So it protects keys that leave the ledger, in
files of the lake, exports and what is printed: without the ledger nobody can tell from such a key
whether a prompt that he guesses was asked. A ledger that has answers gets it from `rekey`, which
brings their keys over; there are never two kinds of keys in one ledger.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.identity import keyed
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.steps import Steps

if TYPE_CHECKING:
    from ondine_dagster.ledger.database import Database

_SECRET, _DONE = "answer key secret", "answer keys brought over"
_BYTES = 32
KEYS_NOTE = (
    "ondine.keys"  # of files in the lake: the name of the secret that their keys are made with
)
_v, _s, _a = schema.properties.c, schema.asks.c, schema.answers.c
_ASK = Prepared(
    "key_ attempt_ pos_",
    lambda _: (
        sa.update(schema.asks)
        .where(_s.attempt == sa.bindparam("attempt_"), _s.pos == sa.bindparam("pos_"))
        .ordered_values((_s.answer_key, sa.bindparam("key_")))
    ),
)
_ANSWER = Prepared(
    "key_ id_",
    lambda _: (
        sa.update(schema.answers)
        .where(_a.id == sa.bindparam("id_"))
        .ordered_values((_a.answer_key, sa.bindparam("key_")))
    ),
)


def key_secret(connection: Connection) -> bytes | None:
    """Return the secret under which answer keys are made; None where they are plain hashes.

    Raises OndineError while only some of the keys were brought over to it.
    """
    if _property(connection, _DONE) is not None:
        raise OndineError(
            "`ondine-dagster rekey` has not ended: it brings answer keys over, and only some "
            "answers would be found now. Wait for it; if it was cut short, run it again. Nothing "
            "was sent."
        )
    return _property(connection, _SECRET)


def secret_name(secret: bytes | None) -> str:
    """Return the name of a secret (eight hex digits), empty for none: files note it."""
    return "" if secret is None else sha256(b"name" + secret).hexdigest()[:8]


def make_secret(connection: Connection) -> None:
    """Give a ledger its secret where nothing was asked yet, and nobody is about to ask."""
    alive = sa.select(schema.processes.c.id).where(schema.processes.c.state == "alive")
    if _property(connection, _SECRET) is not None:
        return
    someone = sa.union_all(sa.select(_s.attempt), alive).limit(1)
    if connection.execute(someone).first() is None:
        _put(connection, _SECRET, os.urandom(_BYTES))


def bring_keys_over(database: Database, *, begin: bool) -> None:
    """Give a ledger its secret, and bring all of its keys over to it; or `begin` not, but end it.

    In steps of about 50 ms. Nobody else may use the ledger; where it is cut short nobody can, until
    it is run again.
    """
    with database.write() as connection:
        if begin and _property(connection, _SECRET) is None:
            _put(connection, _SECRET, os.urandom(_BYTES))
            _put(connection, _DONE, b"")
    steps, left = Steps(), True
    while left:
        with database.write() as connection, steps.timed():
            connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
            left = _step(connection, steps.size)


def _step(connection: Connection, most: int) -> bool:
    """Bring the next keys over; return whether there may be more.

    What was done last is noted in the same transaction: a key must not be brought over twice.
    """
    secret, last = _property(connection, _SECRET), _property(connection, _DONE)
    if secret is None or last is None:
        return False
    if not last.startswith(b"answers"):
        attempt, pos = last[:16], int.from_bytes(last[16:])
        place = sa.tuple_(_s.attempt, _s.pos)
        statement = sa.select(_s.attempt, _s.pos, _s.answer_key).order_by(_s.attempt, _s.pos)
        if last:
            statement = statement.where(place > sa.tuple_(sa.literal(attempt), sa.literal(pos)))
        asks = connection.execute(statement.limit(most)).all()
        _ASK.run(connection, [(keyed(key, secret), *where) for *where, key in asks])
        end = asks[-1][0] + int(asks[-1][1]).to_bytes(4) if asks else b"answers"
        _put(connection, _DONE, end)
        return True
    rows = sa.select(_a.id, _a.answer_key).where(_a.id > last.removeprefix(b"answers"))
    found = connection.execute(rows.order_by(_a.id).limit(most)).all()
    _ANSWER.run(connection, [(keyed(key, secret), one) for one, key in found])
    _put(connection, _DONE, b"answers" + found[-1][0] if found else None)
    return bool(found)


def _property(connection: Connection, name: str) -> bytes | None:
    found = connection.execute(sa.select(_v.value).where(_v.name == name)).scalar()
    return None if found is None else bytes(found)


def _put(connection: Connection, name: str, value: bytes | None) -> None:
    connection.execute(sa.delete(schema.properties).where(_v.name == name))
    if value is not None:
        connection.execute(sa.insert(schema.properties), [{"name": name, "value": value}])
