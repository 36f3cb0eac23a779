"""The file: durability, modes, locks, checkpoints, and errors that a person can read."""

from __future__ import annotations

import fcntl
import re
import shutil
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import database as module
from ondine_dagster.ledger.database import Database, LedgerUnavailable, reader_engine
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster_tests.ledger.builders import (
    ask_and_answer,
    execute,
    go,
    key,
    request,
    rows,
    value,
)
from ondine_dagster_tests.ledger.children import Child


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


def pragma(database: Database, name: str) -> object:
    with database.write() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_commits_are_durable_and_checkpoints_ours(database: Database) -> None:
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "wal_autocheckpoint") == 0
    assert pragma(database, "auto_vacuum") == 2  # incremental, from the first table on


def test_a_new_connection_after_an_error_is_as_durable(database: Database) -> None:
    with pytest.raises(LedgerUnavailable), database.write() as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "wal_autocheckpoint") == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has no strace")
def test_the_disk_has_a_reservation_before_anything_can_be_sent(path: Path) -> None:
    """Kill -9 cannot show a missing fsync; the calls of the system can."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-e", "trace=fdatasync,fsync,write", "-s", "40", "-y"]
    with Child("reserve_and_say_so", path, prefix=command) as child:
        child.wait()
        calls = [line for line in child.errors.splitlines() if re.search(r"sync\(|write\(1<", line)]
    (reserving,) = [index for index, line in enumerate(calls) if '"reserving' in line]
    (sent,) = [index for index, line in enumerate(calls) if '"sent' in line]
    synced = [
        line for line in calls[reserving:sent] if "sync(" in line and "ledger.sqlite-wal" in line
    ]
    assert synced, calls


def test_only_the_owner_may_read_the_ledger(ledger: Ledger, path: Path) -> None:
    ask_and_answer(ledger, "q")
    files = [*path.parent.glob("ledger.sqlite*"), *(path.parent / "ledger.d").iterdir()]
    assert {file.name for file in files} >= {
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
        "ledger.sqlite.lock",
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((path.parent / "ledger.d").stat().st_mode) == 0o700


# transactions


def test_an_error_rolls_back_and_the_next_transaction_works(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO datasets VALUES ('a', 'a.yaml')")
        _ = 1 / 0
    assert rows(database, "SELECT * FROM datasets") == []
    execute(database, "INSERT INTO datasets VALUES ('b', 'b.yaml')")
    assert rows(database, "SELECT name FROM datasets") == [("b",)]


def test_threads_write_one_after_the_other(database: Database) -> None:
    """A read and an update of eight threads: no update may be lost."""
    execute(database, "INSERT INTO spend VALUES ('all', 'total', 'usd', 0, 0, 0)")

    def add() -> None:
        for _ in range(25):
            with database.write() as connection:
                now = connection.exec_driver_sql("SELECT settled FROM spend").scalar_one()
                connection.exec_driver_sql("UPDATE spend SET settled = ?", (now + 1,))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(database, "SELECT settled FROM spend") == 200


def test_every_transaction_and_checkpoint_is_under_the_file_lock(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it one of eight writers starves, and old SQLite corrupts a WAL."""

    def is_locked() -> bool:
        with open(f"{path}.lock", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    seen: dict[str, bool] = {}
    database._checkpoint_at = 0
    monkeypatch.setattr(module, "_CHECKPOINT_WAL_BYTES", 0)
    with database.write() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda sql: seen.update({sql.split("(")[0]: is_locked()}))
        connection.exec_driver_sql("INSERT INTO datasets VALUES ('a', 'a.yaml')")
    driver.set_trace_callback(None)
    assert seen["INSERT INTO datasets VALUES "]
    assert seen["COMMIT"]
    assert seen["PRAGMA wal_checkpoint"]
    assert not is_locked()


def test_a_reader_cannot_write(database: Database) -> None:
    with database.read() as connection, pytest.raises(LedgerUnavailable, match="readonly"):
        connection.exec_driver_sql("DELETE FROM datasets")


# opening


def test_six_processes_open_a_fresh_ledger_at_once(path: Path) -> None:
    children = [Child("open", path) for _ in range(6)]
    for child in children:
        child.expect("ready")
    for child in children:
        child.say("go")
    assert [child.finish() for child in children] == [0] * 6
    with reader_engine(path).connect() as connection:
        found = connection.exec_driver_sql("SELECT count(*) FROM processes").scalar()
        versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
    assert found == 6
    assert versions == [(module.HEAD,)]


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(OndineError, match=r"newer version.*9999.*Upgrade"):
        Database(path)
    with pytest.raises(OndineError, match=r"newer version.*9999.*Upgrade"):
        reader_engine(path).connect()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert found == [("9999",)]


def test_a_ledger_of_an_older_version_is_brought_up_to_date_by_whoever_reads_it(
    path: Path,
) -> None:
    path.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(module._MIGRATIONS))
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    with reader_engine(path).connect() as connection:
        assert connection.exec_driver_sql("SELECT held_until FROM provider_state").all() == []


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(LedgerUnavailable, match=r"not a database.*backup"):
        Ledger(path)
    assert path.read_bytes() == b"not a database" * 500


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnavailable, match="file"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_ledger_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(OndineError, match=f"no ledger at {path}"):
        reader_engine(path).connect()


def test_a_network_file_system_is_refused_by_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_file_system", lambda folder: "nfs4")
    with pytest.raises(OndineError, match="nfs4"):
        Database(path)


def test_the_file_system_of_a_folder_is_known(tmp_path: Path) -> None:
    if not Path("/proc/mounts").exists():
        pytest.skip("the system does not list its mounts")
    assert module._file_system(tmp_path) not in (None, *module._NETWORK_FILE_SYSTEMS)
    assert module._file_system(Path("/proc")) == "proc"


# a disk that is full, a file that is locked


def limit_pages(ledger: Ledger, more: int) -> None:
    """Leave room for `more` pages, as a disk does that is almost full."""
    with ledger.database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + more}")


def test_a_full_disk_stops_with_words_and_loses_nothing_that_was_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_and_answer(ledger, "q")
    original = module._prepare

    def prepare_small(connection: sqlite3.Connection) -> None:
        original(connection)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    with monkeypatch.context() as small:
        small.setattr(module, "_prepare", prepare_small)
        limit_pages(ledger, 0)
        with pytest.raises(LedgerUnavailable, match=r"full.*Free space"):
            for number in range(100):
                ask_and_answer(ledger, number, text="x" * 5000)
    ask_and_answer(ledger, "room again", text="x" * 50_000)  # nothing else is needed
    assert set(ledger.look_up([key("q"), key("room again")], 100)) == {key("q"), key("room again")}


def test_a_foreign_lock_is_named(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger.database.write() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=1")
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.001)  # for the connections of later tries
    browser = sqlite3.connect(path, isolation_level=None)
    browser.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerUnavailable, match=r"locked.*database browser"):
            ledger.reserve(request("q"))
    finally:
        browser.execute("ROLLBACK")
        browser.close()
    go(ledger, request("q"))


def test_no_person_s_data_stands_in_an_error(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="UNIQUE") as caught:
        for _ in range(2):
            execute(ledger.database, "INSERT INTO datasets VALUES (?, ?)", "canary", "x")
    assert "canary" not in str(caught.value)
    with pytest.raises(Exception, match="bindings") as caught:
        rows(ledger.database, "SELECT 1", "canary")
    assert "canary" not in str(caught.value)


# checkpoints


def fill(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: int) -> Path:
    monkeypatch.setattr(module, "_CHECKPOINT_WAL_BYTES", limit)
    ledger.database._checkpoint_at = limit
    for number in range(20):
        ask_and_answer(ledger, number, text="x" * 10_000)
    return Path(f"{ledger.path}-wal")


def test_the_wal_does_not_grow_for_ever(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = fill(ledger, monkeypatch, 100_000)
    assert wal.stat().st_size < 200_000
    assert len(ledger.look_up([key(number) for number in range(20)], 100)) == 20


def test_a_long_reader_holds_nobody_up_and_is_not_disturbed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_and_answer(ledger, "q")
    tried = 0
    original = Database._checkpoint_if_large

    def count(self: Database, connection: object) -> None:
        nonlocal tried
        before = self._checkpoint_at
        original(self, connection)  # type: ignore[arg-type]
        tried += self._checkpoint_at > before

    monkeypatch.setattr(Database, "_checkpoint_if_large", count)
    with ledger.database.read() as reader:
        reader.exec_driver_sql("BEGIN")
        assert reader.exec_driver_sql("SELECT count(*) FROM answers").scalar() == 1
        wal = fill(ledger, monkeypatch, 100_000)  # would wait 30 s per commit for the reader
        assert wal.stat().st_size > 300_000
        # again only when it has grown by as much once more
        assert 2 <= tried <= wal.stat().st_size // 100_000
        assert reader.exec_driver_sql("SELECT count(*) FROM answers").scalar() == 1
        reader.exec_driver_sql("ROLLBACK")
    ledger.database._checkpoint_at = 0
    ask_and_answer(ledger, "last")
    assert wal.stat().st_size < 100_000


def test_the_last_to_close_leaves_one_file(path: Path) -> None:
    ledger = Ledger(path)
    ask_and_answer(ledger, "q")
    ledger.close()
    assert {file.name for file in path.parent.iterdir()} == {
        "ledger.d",
        "ledger.sqlite",
        "ledger.sqlite.lock",
    }
    assert list((path.parent / "ledger.d").iterdir()) == []
