"""The guard is what keeps a test run from costing money, so it is tested itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import urllib.request

import pytest

from ondine_dagster_tests.network_guard import NetworkGuard, NetworkUseError, is_loopback

# 192.0.2.0/24 is set aside for documentation: nobody answers there.
ELSEWHERE = "192.0.2.1"


@pytest.mark.behaviour("A-31")
def test_a_connection_to_another_machine_is_an_error(network_guard: NetworkGuard) -> None:
    with socket.socket() as sock, pytest.raises(NetworkUseError, match=ELSEWHERE):
        sock.connect((ELSEWHERE, 80))
    network_guard.refused.clear()


def test_looking_up_a_name_is_an_error(network_guard: NetworkGuard) -> None:
    with pytest.raises(NetworkUseError, match=r"api\.openai\.com"):
        urllib.request.urlopen("http://api.openai.com/v1/models", timeout=1)
    network_guard.refused.clear()


def test_asyncio_and_other_threads_are_seen(network_guard: NetworkGuard) -> None:
    async def connect() -> None:
        await asyncio.open_connection(ELSEWHERE, 80)

    def run() -> None:
        with contextlib.suppress(NetworkUseError):
            asyncio.run(connect())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert any(ELSEWHERE in message for message in network_guard.refused)
    network_guard.refused.clear()


def test_loopback_works(network_guard: NetworkGuard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert network_guard.refused == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", b"localhost"])
def test_loopback_hosts(host: str | bytes) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "example.com", "127.0.0.1.example"])
def test_other_hosts(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.behaviour("A-31")
def test_tests_see_no_keys_and_a_data_folder_of_their_own() -> None:
    keys = [name for name in os.environ if name.endswith("_API_KEY")]
    assert keys == []
    assert "DAGSTER_HOME" not in os.environ
    assert os.environ["ONDINE_DATA_DIR"].endswith("data")
