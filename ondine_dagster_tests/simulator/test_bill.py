"""The bill: charges, repeats, requests in flight, connections, keys, tokens and money."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest

from ondine_dagster.llm.prices import Prices
from ondine_dagster.simulator import Simulator, TokenRules, answer, prompt_sha256
from ondine_dagster_tests.simulator.clients import SCHEMA, ask, body, content, open_socket, send

_TEXTS = ("one", "two", "three", "four")


def _hashed(key: str) -> str:
    return hashlib.sha256(f"Bearer {key}".encode()).hexdigest()


def test_a_repeated_prompt_is_charged_again_and_counted_as_a_repeat(simulator: Simulator) -> None:
    for text in ("one", "one", "two", "one"):
        ask(simulator, text)
    bill = simulator.bill.snapshot()
    one = prompt_sha256([{"role": "user", "content": "one"}])
    assert bill.prompts[one].charged == 3
    assert bill.repeated == {one: 2}
    assert (bill.totals.charged, bill.totals.repeats, len(bill.prompts)) == (4, 2, 2)


def test_a_refused_attempt_is_no_repeat(simulator: Simulator) -> None:
    for _ in range(3):
        ask(simulator, "one [[fault=503 times=2]]")
    (line,) = simulator.bill.snapshot().prompts.values()
    assert (line.requests, line.charged, line.answered) == (3, 1, 1)
    assert simulator.bill.totals.repeats == 0


def test_money_is_tokens_by_price_to_the_picodollar(
    simulator_factory: Callable[..., Simulator],
) -> None:
    prices = Prices.per_million_usd(
        input=Decimal("0.15"), output=Decimal("0.60"), request=Decimal("0.000001")
    )
    simulator = simulator_factory(prices=prices)
    usage = ask(simulator, "What is this?", schema=SCHEMA).json()["usage"]
    expected = usage["prompt_tokens"] * 150_000 + usage["completion_tokens"] * 600_000 + 1_000_000
    assert simulator.bill.totals.picodollars == expected
    assert simulator.bill.totals.prompt_tokens == usage["prompt_tokens"]
    assert simulator.bill.totals.completion_tokens == usage["completion_tokens"]


def test_cached_tokens_are_a_share_of_the_prompt_and_have_their_price(
    simulator_factory: Callable[..., Simulator],
) -> None:
    prices = Prices.per_million_usd(
        input=Decimal("1"), output=Decimal("2"), cached_input=Decimal("0.25")
    )
    simulator = simulator_factory(prices=prices, tokens=TokenRules(cached_share=0.5))
    usage = ask(simulator, "a" * 84).json()["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (21, 10)
    expected = 11 * 1_000_000 + 10 * 250_000 + usage["completion_tokens"] * 2_000_000
    assert simulator.bill.totals.picodollars == expected


def test_a_reported_cost_is_what_is_charged(simulator_factory: Callable[..., Simulator]) -> None:
    simulator = simulator_factory(report_cost=True)
    cost = json.loads(ask(simulator, "hello").text, parse_float=Decimal)["usage"]["cost"]
    assert cost * 10**12 == simulator.bill.totals.picodollars > 0
    assert "cost" not in ask(simulator, "[[fault=missing_cost]]").json()["usage"]
    assert "cost" not in ask(simulator_factory(), "hello").json()["usage"]


def test_a_token_is_four_bytes_or_one(simulator_factory: Callable[..., Simulator]) -> None:
    by_four = ask(simulator_factory(), "äbcde").json()["usage"]
    by_one = ask(simulator_factory(tokens=TokenRules(per_byte=True)), "äbcde").json()["usage"]
    assert (by_four["prompt_tokens"], by_one["prompt_tokens"]) == (2, 6)


def test_the_schema_is_part_of_the_input(simulator: Simulator) -> None:
    plain = ask(simulator, "hello").json()["usage"]["prompt_tokens"]
    structured = ask(simulator, "hello", schema=SCHEMA).json()["usage"]["prompt_tokens"]
    assert structured > plain + 20


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_ceiling_cuts_the_answer(simulator: Simulator, field: str) -> None:
    response = ask(simulator, "[[token=abcdefghijklmnopqrstuvwxyz]]", **{field: 3})
    assert content(response) == "abcdefghijkl"
    assert response.json()["choices"][0]["finish_reason"] == "length"
    assert response.json()["usage"]["completion_tokens"] == 3


def test_a_ceiling_can_be_ignored(simulator_factory: Callable[..., Simulator]) -> None:
    simulator = simulator_factory(tokens=TokenRules(ignore_ceiling=True))
    response = ask(simulator, "[[token=abcdefghijklmnopqrstuvwxyz]]", max_tokens=3)
    assert content(response) == "abcdefghijklmnopqrstuvwxyz"
    assert response.json()["usage"]["completion_tokens"] == 7


def test_hidden_reasoning_is_billed_and_uses_up_the_ceiling(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(tokens=TokenRules(reasoning=50))
    free = ask(simulator, "[[token=abcd]]").json()["usage"]
    assert free["completion_tokens"] == 51
    assert free["completion_tokens_details"] == {"reasoning_tokens": 50}
    tight = ask(simulator, "[[token=abcd]]", max_tokens=20)
    assert content(tight) == ""
    assert tight.json()["usage"]["completion_tokens"] == 20


def test_requests_in_flight_are_counted_exactly(simulator: Simulator) -> None:
    simulator.hold()
    with ThreadPoolExecutor(7) as threads:
        replies = [threads.submit(ask, simulator, f"question {n}") for n in range(7)]
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 7)
        assert simulator.bill.totals.answered == 0
        simulator.release()
        assert [reply.result().status_code for reply in replies] == [200] * 7
    totals = simulator.bill.totals
    assert (totals.in_flight, totals.max_in_flight, totals.answered) == (0, 7, 7)


def test_a_client_that_leaves_is_charged_and_not_answered(simulator: Simulator) -> None:
    simulator.hold()
    with open_socket(simulator) as connection:
        send(connection, "hello")
        assert simulator.bill.wait_for(lambda totals: totals.in_flight == 1)
    assert simulator.bill.wait_for(lambda totals: totals.in_flight == 0)
    simulator.release()
    assert ask(simulator, "another").status_code == 200
    line = simulator.bill.snapshot().prompts[prompt_sha256(body("hello")["messages"])]
    assert (line.requests, line.charged, line.answered) == (1, 1, 0)


def test_connections_are_counted_once_and_only_for_chat_requests(simulator: Simulator) -> None:
    url = f"{simulator.base_url}/chat/completions"
    with httpx.Client() as client:
        client.get(f"{simulator.url}/health")
        assert simulator.bill.totals.connections == 0
        for n in range(3):
            client.post(url, json=body(str(n)))
    assert simulator.bill.totals.connections == 1
    ask(simulator, "on a connection of its own")
    assert simulator.bill.totals.connections == 2


def test_keys_are_known_by_their_hash_only(simulator: Simulator) -> None:
    url = f"{simulator.base_url}/chat/completions"
    httpx.post(url, json=body("hello"), headers={"authorization": "Bearer secret-key"})
    bill = httpx.get(f"{simulator.url}/bill")
    assert bill.json()["authorizations"] == {_hashed("secret-key"): 1}
    assert "secret-key" not in bill.text


def test_money_is_known_by_key(simulator: Simulator) -> None:
    for key, text in (("a", "one"), ("b", "two"), ("b", "three"), ("b", "[[fault=503]]")):
        ask(simulator, text, key=key)
    ask(simulator, "four")
    bill = simulator.bill.snapshot()
    lines = {text: bill.prompts[prompt_sha256(body(text)["messages"])] for text in _TEXTS}
    assert bill.spent == {
        _hashed("a"): lines["one"].picodollars,
        _hashed("b"): lines["two"].picodollars + lines["three"].picodollars,
    }
    assert sum(bill.spent.values()) == bill.totals.picodollars - lines["four"].picodollars


def test_the_bill_over_http_is_the_bill_in_the_process(simulator: Simulator) -> None:
    ask(simulator, "hello")
    over_http = httpx.get(f"{simulator.url}/bill").json()
    assert over_http == json.loads(json.dumps(simulator.bill.snapshot().to_json()))
    assert over_http["totals"]["distinct_prompts"] == 1
    assert "prompts" not in httpx.get(f"{simulator.url}/bill?prompts=0").json()


def test_first_and_last_time_enclose_the_requests(simulator: Simulator) -> None:
    assert simulator.bill.totals.first_at is None
    ask(simulator, "one")
    first = simulator.bill.totals
    ask(simulator, "two")
    second = simulator.bill.totals
    assert first.first_at is not None
    assert first.last_at is not None
    assert second.last_at is not None
    assert second.first_at == first.first_at <= first.last_at <= second.last_at


def test_a_reset_empties_the_bill_and_restarts_the_attempts(simulator: Simulator) -> None:
    text = "hello [[fault=500 times=1]]"
    assert [ask(simulator, text).status_code for _ in range(2)] == [500, 200]
    assert httpx.post(f"{simulator.url}/reset").status_code == 200
    assert simulator.bill.totals.requests == 0
    assert simulator.bill.snapshot().prompts == {}
    assert ask(simulator, text).status_code == 500


def test_an_answer_on_the_wire_is_the_pure_function_s(simulator: Simulator) -> None:
    request = body("I love it, although it arrived late.", schema=SCHEMA)
    response = httpx.post(f"{simulator.base_url}/chat/completions", json=request)
    assert content(response) == answer(request["messages"], SCHEMA)
