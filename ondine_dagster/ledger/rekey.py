"""Brings all texts of a ledger over to another key, or takes their encryption off.

In steps of about 50 ms, each text on its own: where it is cut short, it is run again. No other
process may use the ledger meanwhile: it would go on with the old key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import payloads, schema
from ondine_dagster.ledger.key_secret import bring_keys_over
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.sealing import NAMESPACE_BYTES, Unreadable, bound_key, set_bound_key
from ondine_dagster.ledger.statements import Prepared
from ondine_dagster.ledger.steps import Steps
from ondine_dagster.wording import plural

_p, _r = schema.payloads.c, schema.processes.c
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
    those whose bytes somebody has changed. Both stay as they are.
    """

    texts: int = 0
    other: Counter[str] = field(default_factory=Counter)
    damaged: int = 0


def rekey(ledger: Ledger, *, lost: bool = False, off: bool = False) -> Rekeyed:
    """Seal all texts under the key in force; with `off` and without one, open them for good.

    Answer keys are brought over to the secret of the ledger first, and stay like that.

    The ledger is open whatever its key is. Raises OndineError where the key of the ledger is
    neither given nor said to be `lost`, and while other processes use the ledger.
    """
    database, used = ledger.database, ledger.database.sealing
    _refuse_company(ledger)
    if used.namespace is None and not off:
        raise OndineError(
            "ONDINE_ENCRYPTION_KEY is not set. Set it to the new key; or, to take the encryption "
            "off, set ONDINE_OLD_ENCRYPTION_KEY to the old one and give --off."
        )
    if used.namespace is not None and off:
        raise OndineError("--off takes the encryption off: unset ONDINE_ENCRYPTION_KEY for that.")
    with database.read() as connection:
        bound = bound_key(connection)
    if bound is not None and not lost and not used.knows(bound):
        raise OndineError(
            f"The answers in {ledger.path} are encrypted under key {bound.hex()}, which is not "
            "given. Set ONDINE_OLD_ENCRYPTION_KEY to it. Where it is lost for good, give --lost: "
            "its answers stay unreadable, and are not asked again."
        )
    bring_keys_over(database, begin=not off)
    done, last, steps = Rekeyed(), b"", Steps()
    while True:
        with database.write() as connection, steps.timed():
            connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
            found = connection.execute(
                sa.select(_p.answer, _p.codec, _p.body)
                .where(_p.answer > last)
                .order_by(_p.answer)
                .limit(steps.size)
            ).all()
            _WRITE.run(connection, [row for one in found if (row := _again(ledger, done, *one))])
            if not found:
                set_bound_key(connection, used.namespace)
                break
        last = found[-1][0]
    database.compact()
    return done


def _again(
    ledger: Ledger, done: Rekeyed, answer: bytes, codec: int, body: bytes
) -> tuple[int, bytes, bytes] | None:
    """Return a text as it has to be written, None where it stays."""
    used = ledger.database.sealing
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


def _refuse_company(ledger: Ledger) -> None:
    others = sa.select(sa.func.count()).where(_r.state == "alive", _r.id != ledger.process)
    ledger.reap()
    with ledger.database.read() as connection:
        count = connection.execute(others).scalar_one()
    if count:
        raise OndineError(
            f"{plural(count, 'other process')} of this data folder, such as a run, would go on "
            "with the old key. Let that end first."
        )
