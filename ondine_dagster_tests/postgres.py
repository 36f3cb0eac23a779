"""A PostgreSQL of the tests' own: a private cluster in a temporary folder, on loopback.

Started once per test process, at the first test that asks for it, and gone when the process is,
even when it is killed: its server waits for the end of a pipe. Tests are skipped where PostgreSQL
is not installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

USER, PASSWORD = "ondine", "s3cret/p@ss:word"
_DEBIAN = "/usr/lib/postgresql"
_PATIENCE_SECONDS = 60
# ends the server when our end of the pipe is closed, by us or by our death; $0 is the folder
_UNTIL_PIPE_ENDS = '"$@" </dev/null & read -r _; kill -INT $!; wait $!; rm -rf "$0"'
_FAST = (
    "fsync=off synchronous_commit=off full_page_writes=off shared_buffers=16MB max_connections=40 "
    "listen_addresses=127.0.0.1 timezone=UTC"
).split()


@dataclass
class Postgres:
    """A running server. Its user may do everything there, and needs the password."""

    port: int
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str, password: str | None = PASSWORD) -> str:
        """Return the URL of a database, as SQLAlchemy and a declaration take it."""
        from sqlalchemy import URL

        url = URL.create("postgresql", USER, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL for this test process; skip where it is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: `make postgres`")
    # not below pytest's own folder, which is closed to the server's user
    folder = Path(tempfile.mkdtemp(prefix="ondine_postgres_"))
    owner = _other_user()
    server = None
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        _init(programs, folder, owner)
        port = _free_port()
        settings = [part for one in _FAST for part in ("-c", one)]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
        with open(os.devnull, "wb") as nowhere:
            server = subprocess.Popen(
                ["sh", "-c", _UNTIL_PIPE_ENDS, str(folder), *command, "-k", str(folder), *settings],
                stdin=subprocess.PIPE,
                stdout=nowhere,
                stderr=subprocess.STDOUT,
                cwd=folder,
                **_as(owner),
            )
        _wait(programs, folder, port, server)
        yield Postgres(port)
    finally:
        if server is not None:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(_PATIENCE_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """Return the URL, with its password, of an empty database for this test."""
    return postgres.new_database()


def _programs() -> Path | None:
    """Return the folder of initdb and postgres, None where they are not installed."""
    known = shutil.which("initdb")
    if known:
        return Path(known).resolve().parent
    found = sorted(Path(_DEBIAN).glob("*/bin/initdb"), key=lambda one: float(one.parts[-3]))
    return found[-1].parent if found else None


def _other_user() -> str | None:
    """Return whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _as(owner: str | None) -> dict[str, object]:
    return {} if owner is None else {"user": owner, "extra_groups": []}


def _init(programs: Path, folder: Path, owner: str | None) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    done = subprocess.run(
        [
            *(str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        **_as(owner),
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed: {done.stdout}\n{done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(programs: Path, folder: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    command = [str(programs / "pg_isready"), "-q", "-h", str(folder), "-p", str(port)]
    until = time.monotonic() + _PATIENCE_SECONDS
    while subprocess.run(command).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.02)
