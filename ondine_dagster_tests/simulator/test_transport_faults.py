"""Faults of the connection, seen by a bare socket, under both HTTP parsers that uvicorn may use."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ondine_dagster.simulator import Simulator, Totals
from ondine_dagster_tests.simulator.clients import ask, head, open_socket, send


@pytest.fixture(params=["httptools", "h11"])
def provider(
    request: pytest.FixtureRequest, simulator_factory: Callable[..., Simulator]
) -> Iterator[Simulator]:
    if request.param == "httptools":
        pytest.importorskip("httptools")
    yield simulator_factory(http=request.param)


def _idle(totals: Totals) -> bool:
    return totals.in_flight == 0


def test_reset_after_reading_is_a_tcp_reset_and_is_charged(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=reset_after]] hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    totals = provider.bill.totals
    assert (totals.requests, totals.charged, totals.answered) == (1, 1, 0)
    assert totals.picodollars > 0
    assert totals.in_flight == 0


def test_reset_before_reading_is_a_tcp_reset_and_costs_nothing(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=reset_before times=1]] hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    totals = provider.bill.totals
    assert (totals.requests, totals.charged, totals.refused) == (1, 0, 1)
    assert totals.picodollars == 0


def test_reset_before_reading_does_not_wait_for_the_rest_of_the_body(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        connection.sendall(head(100_000) + b'{"messages": "[[fault=reset_before]] ...')
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert provider.bill.wait_for(_idle)
    totals = provider.bill.totals
    assert (totals.requests, totals.charged, totals.refused) == (1, 0, 1)


def test_half_close_ends_the_stream_without_an_answer_and_is_charged(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=half_close]] hello")
        assert connection.recv(1) == b""
        connection.sendall(b"still read by the server")
    totals = provider.bill.totals
    assert (totals.charged, totals.answered) == (1, 0)


def test_a_stalled_request_gets_no_byte_stays_in_flight_and_is_charged(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=stall]] hello")
        assert provider.bill.wait_for(lambda totals: totals.charged == 1)
        assert ask(provider, "another").status_code == 200
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        assert provider.bill.totals.in_flight == 1
    assert provider.bill.wait_for(_idle)
    assert provider.bill.totals.answered == 1


def test_a_truncated_body_is_shorter_than_its_content_length(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=truncated]] hello")
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    start, _, rest = received.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 200 OK\r\n")
    declared = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(rest) < declared
    totals = provider.bill.totals
    assert (totals.charged, totals.answered) == (1, 0)


def test_a_stall_in_the_body_sends_half_of_it_and_keeps_the_connection(provider: Simulator) -> None:
    with open_socket(provider) as connection:
        send(connection, "[[fault=stall_in_body]] hello")
        received = b""
        while b'"object"' not in received:
            received += connection.recv(4096)
        assert ask(provider, "another").status_code == 200
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    assert provider.bill.wait_for(_idle)
    assert provider.bill.totals.charged == 2


def test_the_simulator_stops_while_a_request_is_stalled() -> None:
    with ExitStack() as stack:
        with Simulator() as simulator:
            connection = stack.enter_context(open_socket(simulator))
            send(connection, "[[fault=stall]] hello")
            assert simulator.bill.wait_for(lambda totals: totals.charged == 1)
        assert _is_over(connection)


def _is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
