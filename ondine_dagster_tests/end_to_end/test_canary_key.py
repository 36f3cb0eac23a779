"""A server that repeats the API key in everything it sends: no byte of it is kept anywhere.

Looked through: Dagster's event log and records, the ledger, the lake, logs, output, exceptions.
"""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._serdes import serialize_value

from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.ledger.payloads import decode
from ondine_dagster.ledger.sealing import sealing
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply
from ondine_dagster_tests.llm.contract.providers import PRICES, ROWS, Row
from ondine_dagster_tests.workbench import Bench, numbered, write_rows

CANARY = "sk-canary/7f3+Q9=dontkeepme"
GATEWAY = "gateway-canary-5521-dontkeepme"  # a secret header of a gateway, beside the key
# one provider for each way in which a key is sent
FORMS = {"openai": "authorization: Bearer", "anthropic": "x-api-key:", "azure": "api-key:"}


class Echo:
    """Sends the head of each request back: in `answers` answers, then in refusals.

    And in a header of both.
    """

    def __init__(self, answers: int) -> None:
        self.heads: list[str] = []
        self._answers = answers

    def __call__(self, peer: Peer) -> None:
        head = peer.request().partition(b"\r\n\r\n")[0].decode()
        self.heads.append(head)
        header = f"WWW-Authenticate: {' '.join(head.split())}"
        if len(self.heads) > self._answers:
            error = {"type": "authentication_error", "code": None, "message": head}
            body = json.dumps({"type": "error", "error": error}).encode()
            peer.send(reply(body, header, status="401 Unauthorized"))
        else:
            peer.send(reply(f"<html>{head}</html>".encode(), header))


def forms_of(key: str) -> list[bytes]:
    """Return the key as it may be written: plain, in JSON, in a URL, in base64."""
    plain = [key, json.dumps(key)[1:-1], key.replace("/", r"\/"), quote(key, safe="")]
    parts = [key[: len(key) // 2], key[len(key) // 2 :]]
    return [
        *(one.encode() for one in (*plain, *parts)),
        base64.b64encode(key.encode())[:-4],
    ]


def everything_kept(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below `folder`; what is compressed is unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as ledger, suppress(sqlite3.OperationalError):
                for answer, codec, body in ledger.execute("SELECT * FROM payloads"):
                    yield str(path), decode(codec, body, answer, sealing()).encode()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield str(path), repr((table.to_pylist(), table.schema.metadata)).encode()


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    ("row", "preflight"),
    [
        pytest.param(row, preflight, id=f"{row.provider}-{'looked up' if preflight else 'asked'}")
        for row in ROWS
        for preflight in ((False, True) if row.provider == "openai" else (False,))
        if row.provider in FORMS
    ],
)
def test_a_key_that_the_server_repeats_is_kept_nowhere(
    row: Row,
    preflight: bool,
    tmp_path: Path,
    data_dir: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(row.key_variable, CANARY)
    monkeypatch.setenv("GATEWAY_KEY", GATEWAY)
    caplog.set_level(logging.DEBUG)
    echo = Echo(answers=not preflight)
    with RawServer(echo) as server:
        bench = Bench(declared(row, server.address, preflight), tmp_path, data_dir, instance)
        write_rows(tmp_path / "notes.csv", numbered(4))
        bench.snapshot()
        run = bench.run(raise_on_error=False)
    assert not run.success
    texts = [serialize_value(entry) for entry in instance.all_logs(run.run_id)]
    texts += [record.getMessage() for record in caplog.records]
    texts += capfd.readouterr()
    close_ledger(data_dir / "ledger.sqlite")
    asked = [
        head for head in echo.heads if f"{FORMS[row.provider]} {CANARY}".lower() in head.lower()
    ]
    assert len(asked) == len(echo.heads) == 2 - preflight, "the key was sent, and sent back"
    assert all(f"x-gateway-key: {GATEWAY}" in head.lower() for head in echo.heads)
    assert all(head.startswith("GET" if preflight else "POST") for head in echo.heads)
    said = " ".join(texts)
    assert "401" in said
    assert row.key_variable in said
    kept = [*everything_kept(tmp_path), ("events, logs and output", said.encode())]
    assert len(kept) > 10
    for where, content in kept:
        for form in (*forms_of(CANARY), *forms_of(GATEWAY)):
            at = content.find(form)
            assert at < 0, f"{where}: {content[max(0, at - 300) : at + 300]!r}"


def declared(row: Row, address: str, preflight: bool) -> dict[str, Any]:
    return {
        "name": "notes",
        "source": {"path": "notes.csv", "key": "id"},
        "prompt": {"template": "{{ text }}"},
        "llm": row.declared(f"http://{address}/v1")
        | {"prices": PRICES, "header_variables": {"x-gateway-key": "GATEWAY_KEY"}},
        "limits": {"concurrency": 1, "preflight": preflight},
    }


def test_a_key_that_is_kept_would_be_found(tmp_path: Path) -> None:
    """The search itself: in a log, in a compressed table, escaped, in halves."""
    import pyarrow as pa

    for number, form in enumerate(forms_of(CANARY)):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = form.decode() * 20
        pq.write_table(pa.table({"text": [text]}), folder / "a.parquet", compression="zstd")
        (folder / "b.log").write_text(text)
        assert sum(form in content for _, content in everything_kept(folder)) >= 2
