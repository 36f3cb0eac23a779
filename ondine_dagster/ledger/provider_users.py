"""The engines that are asking a provider right now: who shares its rates and its ceiling.

Owns the table `provider_users`. An engine is live while its process is; a dead process's rows stay
until somebody joins.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.records import ProviderKey

_u, _p = schema.provider_users.c, schema.processes.c


def join(
    connection: Connection, engine: bytes, process: bytes, key: ProviderKey, concurrency: int
) -> None:
    """Put an engine of a process on the list; those of dead processes are removed."""
    dead = sa.select(_p.id).where(_p.state == "dead")
    connection.execute(sa.delete(schema.provider_users).where(_u.process.in_(dead)))
    row = {
        "id": engine,
        "process": process,
        "provider": key.provider,
        "endpoint": key.endpoint,
        "model_family": key.model_family,
        "concurrency": concurrency,
    }
    connection.execute(sa.insert(schema.provider_users), [row])


def leave(connection: Connection, engine: bytes) -> None:
    """Take an engine off the list."""
    connection.execute(sa.delete(schema.provider_users).where(_u.id == engine))


def live(connection: Connection, key: ProviderKey) -> list[bytes]:
    """Return the ids of the engines of living processes that ask this provider, sorted."""
    return sorted(wishes(connection, key))


def wishes(connection: Connection, key: ProviderKey) -> dict[bytes, int]:
    """Return how many requests at once each live engine would send."""
    found = (
        sa.select(_u.id, _u.concurrency)
        .join(schema.processes, _p.id == _u.process)
        .where(
            _u.provider == key.provider,
            _u.endpoint == key.endpoint,
            _u.model_family == key.model_family,
            _p.state == "alive",
        )
    )
    return {row.id: row.concurrency for row in connection.execute(found)}
