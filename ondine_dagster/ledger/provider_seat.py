"""One engine's place among those that ask a provider: blocking calls, for a worker thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.engine import Connection

from ondine_dagster.ledger import provider_state, provider_users
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.provider_state import ProviderState, Report
from ondine_dagster.ledger.records import ProviderKey


@dataclass(frozen=True, slots=True)
class View:
    """What the ledger says: the shared state, and how much each live engine wishes for.

    `elsewhere` is what the others have in flight, counted under a ceiling only. `won`: this engine
    may send the probe of this cool-down.
    """

    state: ProviderState
    wishes: dict[bytes, int]
    elsewhere: int = 0
    won: bool = False


class Seat:
    """Reads and writes what is shared, for one engine."""

    def __init__(
        self, ledger: Ledger, key: ProviderKey, concurrency: int, clock_ms: Callable[[], int]
    ) -> None:
        self.id = new_id()
        self._ledger = ledger
        self._key = key
        self._concurrency = concurrency
        self._clock_ms = clock_ms

    def join(self) -> View:
        """Take the place."""
        process = self._ledger.process
        with self._ledger.database.write() as connection:
            provider_users.join(connection, self.id, process, self._key, self._concurrency)
            provider_state.begin(connection, self._key, self._clock_ms())
            return self._view(connection)

    def look(self, *, reap: bool) -> View:
        """Return what is shared; `reap`: without the dead, what they had is for the others."""
        if reap:
            self._ledger.reap()
        with self._ledger.database.read() as connection:
            return self._view(connection)

    def tell(self, report: Report) -> View:
        """Let the others know what this engine has seen."""
        with self._ledger.database.write() as connection:
            self._write(connection, report)
            return self._view(connection)

    def try_to_win(self, seen: ProviderState) -> View:
        """Try to be the one that sends the next probe."""
        with self._ledger.database.write() as connection:
            won = provider_state.win_probe(connection, self._key, seen, self._clock_ms())
            return replace(self._view(connection), won=won)

    def leave(self, report: Report) -> None:
        """Give the place up, after a last report."""
        with self._ledger.database.write() as connection:
            if report.urgent or report.good:
                self._write(connection, report)
            provider_users.leave(connection, self.id)

    def _view(self, connection: Connection) -> View:
        key, elsewhere = self._key, 0
        state = provider_state.read(connection, key)
        if state.ceiling is not None:
            elsewhere = provider_state.in_flight_elsewhere(connection, key, self._ledger.process)
        return View(state, provider_users.wishes(connection, key), elsewhere)

    def _write(self, connection: Connection, report: Report) -> None:
        process, now = self._ledger.process, self._clock_ms()
        provider_state.report(connection, self._key, process, report, now)
