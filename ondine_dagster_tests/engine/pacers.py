"""Pacers on a fake clock, and four ledgers on one file as of four processes."""

from __future__ import annotations

from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.ledger import provider_users
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rates import Rates
from ondine_dagster.ledger.records import ProviderKey
from ondine_dagster_tests.engine.fake_time import fake_loop

KEY = ProviderKey("openai_compatible", "http://127.0.0.1:9/v1", "m")
TEN_A_SECOND = Rates(requests_per_minute=600)


def make_pacer(ledger: Ledger, rates: Rates, stop: StopSign | None = None) -> Pacer:
    """Return the pacer of an engine that is asking."""
    with ledger.database.write() as connection:
        provider_users.join(connection, new_id(), ledger.process, KEY, concurrency=64)
    return Pacer(ledger, KEY, rates, stop or StopSign(), Progress(), clock=fake_loop().microseconds)
