"""A dataset whose rows are a query of PostgreSQL, as its owner and its daemon run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.assets.automatic import WATCH, Daemon
from ondine_dagster_tests.postgres import PASSWORD
from ondine_dagster_tests.workbench import RESULTS, MakeBench, declaration

_READ = {"database_variable": "SHOP_URL", "table": "letters", "key": "id"}


class Shop:
    """A database with letters."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.do = connection.execute
        self.do("create table letters (id int, text text, price numeric(10, 2), more json)")

    def add(self, *ids: int) -> None:
        for one in ids:
            values = (one, f"[[token=t{one}]] row {one}", "19.90", '{"a":  1.10}')
            self.do("insert into letters values (%s, %s, %s, %s)", values)

    def turn_round(self) -> None:
        """Leave the same rows in another order."""
        self.do("create table again as select * from letters order by id desc")
        self.do("delete from letters")
        self.do("insert into letters select * from again")


@pytest.fixture
def shop(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("SHOP_URL", postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        found = Shop(connection)
        found.add(1, 2, 3)
        yield found


def test_rows_of_a_table_are_paid_once_and_keep_their_types(
    shop: Shop, make_bench: MakeBench, charged: Callable[[], int]
) -> None:
    bench = make_bench(source=_READ)
    bench.run_missing()
    assert charged() == 3
    shop.turn_round()
    bench.snapshot()
    assert bench.run_missing() == []
    shop.add(4)

    bench.run_missing()

    assert charged() == 1
    rows = bench.rows(RESULTS)
    assert [(row["id"], row["response"]) for row in rows] == [(n, f"t{n}") for n in (1, 2, 3, 4)]
    assert {(row["price"], row["more"]) for row in rows} == {(Decimal("19.90"), '{"a":  1.10}')}
    runs = bench.instance.get_runs()
    told = [str(bench.events("snapshot")), *(str(bench.instance.all_logs(r.run_id)) for r in runs)]
    assert "table letters" in told[0]
    assert not any(secret in text for text in told for secret in (PASSWORD, "s3cret", "ondine:"))


def test_the_sensor_asks_the_query_that_is_declared_for_it(
    shop: Shop, make_bench: MakeBench, simulator: Simulator
) -> None:
    bench = make_bench(source=_READ)
    daemon = Daemon(bench)
    assert not daemon.asks(WATCH)
    assert "Declare a query that does as source.watch" in daemon.skipped

    watched = {**_READ, "watch": "select count(*) from letters"}
    bench.declare(declaration(simulator, source=watched))
    daemon.restart()
    assert [len(daemon.asks(WATCH)) for _ in range(3)] == [0, 1, 0]
    shop.add(9)
    assert [len(daemon.asks(WATCH)) for _ in range(3)] == [0, 1, 0]

    shop.do("drop table letters")
    assert not daemon.asks(WATCH)
    assert 'relation "letters" does not exist' in daemon.skipped
