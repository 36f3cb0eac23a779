"""Outages of the provider: what a client sees, what is billed, what is counted."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.simulator.clients import Clock, ask, open_socket, send


def test_an_outage_refuses_every_request_until_it_is_over(simulator: Simulator) -> None:
    simulator.outage()
    refused = [ask(simulator, "one") for _ in range(3)]
    simulator.recover()
    assert [reply.status_code for reply in refused] == [503] * 3
    assert refused[0].json()["error"]["code"] == "server_is_overloaded"
    assert ask(simulator, "one").status_code == 200
    totals = simulator.bill.totals
    assert (totals.during_outage, totals.refused, totals.charged) == (3, 3, 1)


def test_requests_of_an_outage_do_not_count_for_their_prompt(simulator: Simulator) -> None:
    text = "one [[fault=500 times=1]]"
    simulator.outage()
    ask(simulator, text)
    assert simulator.bill.snapshot().prompts == {}
    simulator.recover()
    assert [ask(simulator, text).status_code for _ in range(2)] == [500, 200]


def test_an_outage_may_be_any_refusal(simulator: Simulator) -> None:
    simulator.outage("502 retry_after=7")
    reply = ask(simulator, "one")
    assert (reply.status_code, reply.headers["retry-after"]) == (502, "7")
    with pytest.raises(ValueError, match="unknown fault `earthquake`"):
        simulator.outage("earthquake")


def test_an_outage_by_reset_drops_each_connection_on_arrival_and_bills_nothing(
    simulator: Simulator,
) -> None:
    simulator.outage("reset")
    for _ in range(2):
        with open_socket(simulator) as connection:
            send(connection, "hello")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    simulator.recover()
    assert ask(simulator, "hello").status_code == 200
    totals = simulator.bill.totals
    assert (totals.during_outage, totals.refused, totals.charged) == (2, 2, 1)


def test_an_outage_by_stall_reads_bills_and_never_answers(simulator: Simulator) -> None:
    simulator.outage("stall")
    with open_socket(simulator) as connection:
        send(connection, "hello")
        assert simulator.bill.wait_for(lambda totals: totals.charged == 1)
        simulator.recover()
        assert ask(simulator, "another").status_code == 200
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    totals = simulator.bill.totals
    assert (totals.during_outage, totals.charged, totals.answered) == (1, 2, 1)


def test_the_bill_has_the_times_of_the_requests_in_an_outage(
    simulator_factory: Callable[..., Simulator],
) -> None:
    clock = Clock()
    simulator = simulator_factory(clock=clock)
    start = clock.now
    ask(simulator, "before")
    simulator.outage()
    for seconds in (0, 30, 90):
        clock.now = start + seconds
        ask(simulator, "probe")
    assert simulator.bill.snapshot().outage_times == [start, start + 30, start + 90]
    simulator.reset()
    assert simulator.bill.snapshot().outage_times == []


def test_an_outage_can_be_started_and_ended_over_http(simulator: Simulator) -> None:
    httpx.post(f"{simulator.url}/outage?fault=529").raise_for_status()
    assert ask(simulator, "one").status_code == 529
    assert httpx.post(f"{simulator.url}/outage?fault=flood").status_code == 400
    httpx.post(f"{simulator.url}/recover").raise_for_status()
    assert ask(simulator, "one").status_code == 200
