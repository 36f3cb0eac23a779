"""Brings all texts of a ledger over to another key, or takes their encryption off.

In steps of about 50 ms, each text on its own: where it is cut short, it is run again. No other
process may use the ledger meanwhile, nor until that is done: it would go on with the old key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.key_secret import bring_keys_over
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.processes import company
from ondine_dagster.ledger.sealing import (
    NAMESPACE_BYTES,
    Sealing,
    Unreadable,
    bound_key,
    note_rekeying,
    set_bound_key,
)
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.steps import Steps
from ondine_dagster.wording import plural

_p = schema.payloads.c
_WRITE = Prepared(
    "codec_ body_ id_",
    lambda _: (
        sa.update(schema.payloads)
        .where(_p.answer == sa.bindparam("id_"))
        .ordered_values((_p.codec, sa.bindparam("codec_")), (_p.body, sa.bindparam("body_")))
    ),
)


@dataclass(slots=True)
class Rekeyed:
    """How many texts were brought over.

    `other` counts, by the name of their key, those that are of a key which was not given; `damaged`
    those whose bytes somebody has changed. Both stay as they are. `in_wal`: what stood there before
    is still in the file's WAL, as another program reads the ledger.
    """

    texts: int = 0
    other: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    in_wal: bool = False


def rekey(
    ledger: Ledger,
    *,
    lost: bool = False,
    off: bool = False,
    beside: Callable[[], None] = lambda: None,
) -> Rekeyed:
    """Seal all texts under the key in force; with `off` and without one, open them for good.

    Answer keys are brought over to the secret of the ledger first, and stay like that. `beside`
    brings over what lies beside the ledger, before others may use both again. The file is written
    anew at the end: pages that had room for no more would still hold texts as they were.

    The ledger is open whatever its key is. Raises OndineError where the key of the ledger is
    neither given nor said to be `lost`, and while other processes use the ledger.
    """
    database, used = ledger.database, ledger.database.sealing
    if used.namespace is None and not off:
        raise OndineError(
            "ONDINE_ENCRYPTION_KEY is not set. Set it to the new key; or, to take the encryption "
            "off, set ONDINE_OLD_ENCRYPTION_KEY to the old one and give --off."
        )
    if used.namespace is not None and off:
        raise OndineError("--off takes the encryption off: unset ONDINE_ENCRYPTION_KEY for that.")
    ledger.reap()
    with database.write() as connection:
        _refuse_company(connection, ledger.process)
        bound = bound_key(connection)
        if bound is not None and not lost and not used.knows(bound):
            raise OndineError(
                f"The answers in {ledger.path} are encrypted under key {bound.hex()}, which is not "
                "given. Set ONDINE_OLD_ENCRYPTION_KEY to it. Where it is lost for good, give "
                "--lost: its answers stay unreadable, and are not asked again."
            )
        note_rekeying(connection, begins=True)
    bring_keys_over(database, begin=not off)
    done = _texts_brought_over(database)
    beside()
    with database.write() as connection:
        set_bound_key(connection, used.namespace)
        note_rekeying(connection, begins=False)
    done.in_wal = not database.rewrite()
    return done


def _texts_brought_over(database: Database) -> Rekeyed:
    done, last, steps = Rekeyed(), b"", Steps()
    while True:
        with database.write() as connection, steps.timed():
            connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
            found = connection.execute(
                sa.select(_p.answer, _p.codec, _p.body)
                .join(schema.answers, schema.HAS_TEXT)
                .where(_p.answer > last)
                .order_by(_p.answer)
                .limit(steps.size)
            ).all()
            changed = [row for one in found if (row := _again(database.sealing, done, *one))]
            _WRITE.run(connection, changed)
        if not found:
            return done
        last = found[-1][0]


def _again(
    used: Sealing, done: Rekeyed, answer: bytes, codec: int, body: bytes
) -> tuple[int, bytes, bytes] | None:
    """Return a text as it has to be written, None where it stays."""
    own = body[:NAMESPACE_BYTES] if codec == payloads.SEALED else None
    try:
        text = payloads.decode(codec, body, answer, used)
    except Unreadable:
        if own is None or used.knows(own):
            done.damaged += 1
        else:
            done.other[own.hex()] += 1
        return None
    if own == used.namespace:
        return None
    done.texts += 1
    return (*payloads.encode(text, answer, used), answer)


def _refuse_company(connection: Connection, own: bytes) -> None:
    if count := company(connection, own):
        raise OndineError(
            f"{plural(count, 'other process')} of this data folder, such as a run, would go on "
            "with the old key. Let that end first."
        )
