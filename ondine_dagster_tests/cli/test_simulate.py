"""`simulate`: the simulated provider at a port, with its limits, faults and bill."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from urllib.request import Request, urlopen

import pytest

from ondine_dagster.cli.simulate import fault_plan
from ondine_dagster.errors import OndineError
from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person, Terminal


def test_simulate_answers_fails_as_told_and_prints_its_bill(
    start: Callable[..., Terminal],
) -> None:
    terminal = start("simulate", "--port", "0", "--fault", "503: 100%", "--input-price", "2")
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    request = Request(f"{url}/chat/completions", json.dumps(body).encode())
    with pytest.raises(OSError, match="503"):
        urlopen(request, timeout=10)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0
    assert "bill: 0 of 1 requests charged, $0.000000" in terminal.output


def test_simulate_takes_limits_and_token_rules(start: Callable[..., Terminal]) -> None:
    options = "--rpm 1 --tpm 5000 --capacity 9 --rate-headers openai --tokens-per-byte"
    more = "--reasoning-tokens 7 --ignore-ceiling --model my-model"
    terminal = start("simulate", "--port", "0", *options.split(), *more.split())
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    message = {"role": "user", "content": "[[token=abc]]"}
    body = {"model": "m", "messages": [message], "max_tokens": 2}
    request = Request(f"{url}/chat/completions", json.dumps(body).encode())
    with urlopen(request, timeout=10) as reply:
        usage = json.load(reply)["usage"]
        assert reply.headers["x-ratelimit-limit-tokens"] == "5000"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (13, 7 + 3)
    with urlopen(f"{url}/models", timeout=10) as reply:
        assert [one["id"] for one in json.load(reply)["data"]] == ["my-model"]
    with pytest.raises(OSError, match="429"):
        urlopen(request, timeout=10)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0


def test_a_port_that_is_taken_is_said(person: Person) -> None:
    port = person.simulator.url.rpartition(":")[2]
    result = person.types("simulate", "--port", port)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr and "choose another port" in result.stderr


def test_faults_are_written_with_their_share() -> None:
    plan = fault_plan(3, ["429 retry_after=1: 5%", "stall: 0.01"])
    assert plan == FaultPlan(3, {"429 retry_after=1": 0.05, "stall": 0.01})


@pytest.mark.parametrize("text", ["429", "429: much", "nothing_known: 5%", "429: 200%", ": 5%"])
def test_a_fault_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(OndineError, match="--fault"):
        fault_plan(0, [text])


def test_a_price_that_is_no_number_is_refused(person: Person) -> None:
    result = person.types("simulate", "--output-price", "cheap")
    assert (result.exit_code, "--output-price cheap" in result.stderr) == (1, True)


def test_simulate_refuses_a_key_and_ends_a_day(start: Callable[..., Terminal]) -> None:
    terminal = start(
        "simulate", "--port", "0", "--key", "bad: 401", "--rpd", "1", "--burst", "503: 1"
    )
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()

    def ask(key: str) -> None:
        request = Request(f"{url}/chat/completions", body, {"authorization": f"Bearer {key}"})
        urlopen(request, timeout=10).close()

    with pytest.raises(OSError, match="401"):
        ask("bad")
    ask("good")
    with pytest.raises(OSError, match="429"):
        ask("good")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0


def test_simulate_lists_the_faults_of_a_provider(person: Person) -> None:
    result = person.types("simulate", "--list-faults", "--shape", "anthropic")
    assert (result.exit_code, "pause_turn" in result.stdout) == (0, True)
    assert "zero_cost" not in result.stdout  # Anthropic tells no costs
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["length"].endswith("(billed)")
    assert not lines["context_length"].endswith("(billed)")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fault", "pause_turn: 5%"), "shape openai has no fault `pause_turn`"),
        (("--key", "key-1: stall"), "is no refusal"),
        (("--key", "key-1"), '"key-1: 401"'),
        (("--burst", "429: 80%", "--burst-for", "40"), "--burst-for must be less"),
        (("--burst", "pause_turn: 80%"), "shape openai has no fault"),
    ],
)
def test_what_the_provider_cannot_do_is_refused_at_the_start(
    person: Person, options: tuple[str, ...], says: str
) -> None:
    result = person.types("simulate", *options)
    assert (result.exit_code, says in result.stderr) == (1, True)


def test_a_protocol_that_the_simulator_does_not_speak_is_refused(person: Person) -> None:
    result = person.types("simulate", "--shape", "openay")
    assert (result.exit_code, "known: anthropic" in result.stderr) == (1, True)
