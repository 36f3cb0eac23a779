"""The ledger from inside the event loop, where a wait is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster_tests.ledger.builders import counter, problems, request, state


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.mark.parametrize("loop_ends", [False, True], ids=["loop goes on", "loop has ended"])
def test_a_reservation_whose_wait_was_cancelled_blocks_its_question_no_longer(
    ledger: Ledger, loop_ends: bool
) -> None:
    """It is recorded after the run has given up: the ledger was locked that long."""
    item = request("q")
    locked, unlock = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.database.write():
            locked.set()
            unlock.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    assert locked.wait(60)

    async def main() -> None:
        asking = asyncio.ensure_future(LedgerClient(ledger).reserve(item))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        if not loop_ends:
            unlock.set()
            async with asyncio.timeout(30):
                while counter(ledger.database) != (0, 0) or not recorded():
                    await asyncio.sleep(0.001)

    def recorded() -> bool:
        with ledger.database.read() as connection:
            return bool(connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar())

    asyncio.run(main())
    unlock.set()
    holding.join()
    other = request("another")
    ledger.reserve(other)  # the writer has come so far, and what it was told before it
    ledger.reserve(request("q"))
    assert state(ledger, item) == "released"
    assert ledger.reserve(request("q")).taken
    assert problems(ledger.database) == []
