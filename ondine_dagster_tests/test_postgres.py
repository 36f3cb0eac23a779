"""The tests' own PostgreSQL: private, empty for every test, gone with the test process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from ondine_dagster_tests.postgres import PASSWORD, Postgres

_DIES_WITH_IT = """
import os, signal, sys
from ondine_dagster_tests import postgres

def test_dies(postgres):
    print(postgres.port, file=open({place!r}, "w"), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_test_has_a_database_of_its_own(postgres: Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()

    with psycopg.connect(first) as one, psycopg.connect(second) as other:
        one.execute("create table t (a int)")
        one.commit()
        found = other.execute("select count(*) from pg_tables where tablename = 't'").fetchone()

    assert found == (0,)


def test_it_wants_the_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url("postgres", password="wrong"))
    assert PASSWORD not in postgres.url("postgres")  # it needs quoting, as real ones do


@pytest.mark.slow
def test_it_dies_with_a_killed_process(postgres: Postgres, tmp_path: Path) -> None:
    place = tmp_path / "port"
    test = tmp_path / "test_dies.py"
    test.write_text(_DIES_WITH_IT.format(place=str(place)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "ondine_dagster_tests.postgres", test]
    subprocess.run(command, capture_output=True, cwd=os.getcwd(), timeout=120)

    url = Postgres(int(place.read_text())).url("postgres")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            return
        time.sleep(0.1)
    pytest.fail("the server is still there")
